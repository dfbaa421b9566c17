#include "checkpoints/writer.hpp"

#include "base/file.hpp"
#include "checkpoints/folder_attempt.hpp"
#include "checkpoints/manifest.hpp"
#include "checkpoints/reader.hpp"
#include "checkpoints/tensor_file.hpp"

#include <utility>

namespace konclave {

namespace {

namespace fs = std::filesystem;

void write_tensors(const fs::path& path, const CheckpointContent& content,
                   const std::vector<TensorInfo>& tensors) {
  TensorFileWriter file(path, tensors);
  std::vector<std::byte> host;
  for (const TensorSource& tensor : content.tensors) {
    host.resize(static_cast<std::size_t>(tensor.info.bytes()));
    tensor.fill(host.data());
    file.write(host.data());
  }
  file.close();
}

void write_files(const fs::path& folder, const CheckpointContent& content) {
  Manifest manifest{.step = content.step, .files = {}, .tensors = {}};
  for (const TensorSource& tensor : content.tensors) manifest.tensors.push_back(tensor.info);
  write_tensors(folder / kTensorFile, content, manifest.tensors);
  write_text(folder / kDeckFile, content.deck);
  write_text(folder / kStateFile, content.state.dump(1) + "\n");
  write_text(folder / kProvenanceFile, content.provenance.dump(1) + "\n");
  for (const char* name : {kTensorFile, kDeckFile, kStateFile, kProvenanceFile}) {
    // Read back, but as the writer: what fails here is output.
    manifest.files.push_back(describe_file(File::open_for_writing(folder / name)));
  }
  write_manifest(folder, manifest);
}

void verify_written(const fs::path& folder) {
  try {
    Checkpoint::open(folder).verify();
  } catch (const Error& error) {
    fail(std::string("what was just written is not right: ") + error.what(), ExitCode::io);
  }
}

}  // namespace

void write_checkpoint(const fs::path& checkpoints, const CheckpointContent& content) {
  const std::string name = checkpoint_name(content.step);
  FolderAttempt attempt(checkpoints / name);
  write_files(attempt.folder(), content);
  attempt.commit([&] { verify_written(attempt.folder()); });
  replace_text(checkpoints / kLatestFile, name + "\n");
}

void write_checkpoint_at(const fs::path& folder, const CheckpointContent& content) {
  require_free(folder);
  FolderAttempt attempt(folder);
  write_files(attempt.folder(), content);
  attempt.commit();
}

}  // namespace konclave

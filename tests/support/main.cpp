#include "tensor/kokkos.hpp"

#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdio>
#include <string>

namespace {

/// Prints what failed on a rank other than 0, with the rank; rank 0 has GoogleTest's own printer.
class RankPrinter : public testing::EmptyTestEventListener {
 public:
  explicit RankPrinter(int rank) : rank_(rank) {}

  void OnTestStart(const testing::TestInfo& test) override {
    test_ = std::string(test.test_suite_name()) + "." + test.name();
  }
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    const char* file = result.file_name() == nullptr ? "unknown file" : result.file_name();
    std::fprintf(stderr, "[rank %d] %s\n%s:%d: Failure\n%s\n", rank_, test_.c_str(), file,
                 result.line_number(), result.message());
  }

 private:
  int rank_;
  std::string test_;
};

int run_tests(int rank) {
  if (rank != 0) {
    testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new RankPrinter(rank));  // owned by the list
  }
  const int mine = RUN_ALL_TESTS();
  int worst = mine;
  MPI_Allreduce(&mine, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (rank == 0 && mine == 0 && worst != 0) std::fprintf(stderr, "Tests failed on other ranks.\n");
  return worst;
}

}  // namespace

/// Runs the tests on every rank of MPI_COMM_WORLD; the exit code is the largest of any rank.
int main(int argc, char** argv) {
  int provided = 0, rank = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  for (const MPI_Comm handle : {MPI_COMM_WORLD, MPI_COMM_SELF}) {
    MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN);  // as MpiEnvironment does
  }
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  testing::InitGoogleTest(&argc, argv);
  int result = 1;
  {
    const Kokkos::ScopeGuard kokkos(argc, argv);
    result = run_tests(rank);
  }
  MPI_Finalize();
  return result;
}

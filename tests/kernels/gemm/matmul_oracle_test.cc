// Our matrix products against OpenBLAS and oneDNN: independent implementations of the same sums.
#include <cblas.h>
#include <gtest/gtest.h>
#include <omp.h>
#if DEEPSEEK_DNNL
#include <dnnl.h>
#endif

#include <random>
#include <vector>

#include "kernels/gemm/matmul.h"

namespace deepseek {
namespace {

template <class T>
std::vector<T> random_values(int64_t n, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal;
  std::vector<T> out(n);
  for (T& v : out) v = static_cast<T>(normal(engine));
  return out;
}

template <class T>
View matrix(std::vector<T>& v, int64_t rows, int64_t cols, bool transposed) {
  return {v.data(), dtype_of<T>, {rows, cols}, transposed ? Dims{1, rows} : Dims{cols, 1}};
}

template <class T>
void expect_close(const std::vector<T>& got, const std::vector<T>& want, int64_t k) {
  const double tolerance = 4 * std::numeric_limits<T>::epsilon() * static_cast<double>(k);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << "element " << i;
}

class MatmulOracle : public testing::TestWithParam<std::tuple<int64_t, int64_t, int64_t, bool, bool>> {
#if defined(__SANITIZE_THREAD__)
  void SetUp() override { omp_set_num_threads(1); }  // ThreadSanitizer cannot see into the oracles' libgomp
#endif
};

TEST_P(MatmulOracle, AgreesWithOpenBlasAndOneDnn) {
  const auto [m, n, k, ta, tb] = GetParam();
  auto a64 = random_values<double>(m * k, 1), b64 = random_values<double>(k * n, 2);
  std::vector<double> ours64(m * n), theirs64(m * n);
  kernels::matmul(matrix(ours64, m, n, false), matrix(a64, m, k, ta), matrix(b64, k, n, tb));
  cblas_dgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, 1.0, a64.data(),
              ta ? m : k, b64.data(), tb ? k : n, 0.0, theirs64.data(), n);
  expect_close(ours64, theirs64, k);

  auto a = random_values<float>(m * k, 3), b = random_values<float>(k * n, 4);
  std::vector<float> ours(m * n), theirs(m * n);
  kernels::matmul(matrix(ours, m, n, false), matrix(a, m, k, ta), matrix(b, k, n, tb));
  cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, 1.0f, a.data(),
              ta ? m : k, b.data(), tb ? k : n, 0.0f, theirs.data(), n);
  expect_close(ours, theirs, k);
#if DEEPSEEK_DNNL
  ASSERT_EQ(dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, 1.0f, a.data(), ta ? m : k, b.data(), tb ? k : n, 0.0f,
                       theirs.data(), n),
            dnnl_success);
  expect_close(ours, theirs, k);
#endif
}

INSTANTIATE_TEST_SUITE_P(Shapes, MatmulOracle,
                         testing::Combine(testing::Values(1, 7, 64, 129), testing::Values(1, 33, 200),
                                          testing::Values(1, 50, 700), testing::Bool(), testing::Bool()));

}  // namespace
}  // namespace deepseek

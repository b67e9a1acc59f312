// Results written past the caches: the bits of ordinary ones, whatever the alignment, and nothing beyond them.
#include "kernels/simd/stream.h"

#include <numeric>

#include "kernels/loops/copy.h"
#include "kernels/pointwise/pointwise.h"
#include "kernels/simd/routes.h"
#include "tests/kernels/kernel_testing.h"

namespace deepseek::kernels {
namespace {
using namespace deepseek::testing;

struct StreamAll {
  StreamAll() { set_stream_limit(1); }
  ~StreamAll() { set_stream_limit(0); }
};

// `run` into `out`, once as usual and then streaming on one and two threads: the same memory before, within and behind.
template <class T>
void expect_streamed(Array<T>& out, const std::function<void()>& run, const std::string& route) {
  const auto fresh = [&] { std::fill(out.data.begin(), out.data.end(), T(3)); };
  fresh();
  run();
  const std::vector<T> plain = out.data;
  const StreamAll all;
  const int before = num_threads();
  for (int threads : {1, 2}) {
    set_num_threads(threads);
    reset_route_counts();
    fresh();
    run();
    EXPECT_EQ(times_run(route), 1U);
    EXPECT_EQ(std::memcmp(plain.data(), out.data.data(), plain.size() * sizeof(T)), 0) << threads << " threads";
  }
  set_num_threads(before);
}

TEST(Stream, BytesOfEveryLengthAndAlignment) {
  std::vector<uint8_t> from(512), to(512);
  std::iota(from.begin(), from.end(), uint8_t{1});
  for (size_t skew = 0; skew < 66; ++skew)
    for (size_t source = 0; source < 3; ++source)
      for (size_t n = 0; n < 200; ++n) {
        std::fill(to.begin(), to.end(), uint8_t{0});
        stream_bytes(to.data() + skew, from.data() + source, static_cast<int64_t>(n));
        stream_fence();
        for (size_t i = 0; i < 300; ++i) {
          const uint8_t want = i >= skew && i < skew + n ? from[source + i - skew] : 0;
          ASSERT_EQ(to[i], want) << skew << " " << source << " " << n << " " << i;
        }
      }
}

TEST(Stream, ItemsCoverTheRangeOnce) {
  for (int64_t skew : {0, 1, 2, 60, 64})
    for (int64_t item : {1, 2, 4, 8}) {
      std::vector<char> out(16384, 0);
      int64_t next = 5;
      stream_items(out.data() + skew, item, 5, 1500, [&](int64_t at, int64_t n, char* buffer) {
        EXPECT_EQ(at, next);
        next += n;
        std::fill_n(buffer, n * item, static_cast<char>(1));
      });
      stream_fence();
      EXPECT_EQ(next, 1500);
      EXPECT_EQ(std::count(out.begin(), out.end(), 1), 1495 * item);
      EXPECT_EQ(out[static_cast<size_t>(skew + 5 * item)], 1);
    }
}

template <class T>
void check_flat(DType lane) {
  for (int64_t n : {300, 1024, 70001})
    for (int lead : {0, 1, 3}) {
      Array<T> a({n}, 1), b({n}), out({n}, lead);
      fill_integers(a, 1, -100, 100);
      fill_integers(b, 2, -100, 100);
      const FlatInput both[] = {{a.begin(), false, lane}, {b.begin(), false, lane}};
      const FlatInput number[] = {{a.begin(), false, lane}, {b.begin(), true, lane}};
      for (const auto& inputs : {both, number})
        expect_streamed<T>(
            out,
            [&] {
              pointwise_flat(Pointwise::kMaximum, lane, n, out.begin(), {inputs, 2});
            },
            "pointwise.stream");
    }
}

TEST(Stream, FlatPointwise) {
  for_each_target([] {
    check_flat<float>(DType::kFloat32);
    check_flat<double>(DType::kFloat64);
    check_flat<int32_t>(DType::kInt32);
    check_flat<int64_t>(DType::kInt64);
  });
}

// Broadcast, converted and strided operands; rows that do not begin at a line.
TEST(Stream, PointwiseInBlocks) {
  for_each_target([] {
    Array<BFloat16> a({37, 1031}), out({37, 1031}, 1);
    Array<float> row({1031});
    fill_normal(a, 1);
    fill_normal(row, 2);
    View wide = row.view();
    wide.sizes = {37, 1031}, wide.strides = {0, 1};
    const View inputs[] = {a.view(), wide};
    expect_streamed<BFloat16>(
        out, [&] { pointwise(Pointwise::kMul, DType::kFloat32, out.view(), inputs); }, "pointwise.stream");
    Array<float> lanes({37, 1031}, 3);
    expect_streamed<float>(
        lanes, [&] { pointwise(Pointwise::kMul, DType::kFloat32, lanes.view(), inputs); }, "pointwise.stream");
    Array<float> block({37, 2000});  // the rows of a wider matrix
    View part = block.view();
    part.sizes = {37, 1031};
    expect_streamed<float>(
        block, [&] { pointwise(Pointwise::kMul, DType::kFloat32, part, inputs); }, "pointwise.stream");
  });
}

TEST(Stream, Casts) {
  for_each_target([] {
    Array<float> in({37, 1031}), back({37, 1031}, 2);
    fill_normal(in, 1, 100);
    Array<BFloat16> brain({37, 1031}, 1);
    Array<Half> half({37, 1031}, 3);
    Array<int8_t> bytes({37, 1031}, 5);
    Array<double> wide({1031, 37}, 1);
    expect_streamed<BFloat16>(
        brain, [&] { copy(brain.view(), in.view()); }, "copy.stream");
    expect_streamed<Half>(
        half, [&] { copy(half.view(), in.view()); }, "copy.stream");
    expect_streamed<int8_t>(
        bytes, [&] { copy(bytes.view(), in.view()); }, "copy.stream");
    expect_streamed<float>(
        back, [&] { copy(back.view(), brain.view()); }, "copy.stream");
    fill_normal(wide, 3);
    expect_streamed<float>(
        back, [&] { copy(back.view(), transposed(wide.view(), 0, 1)); }, "copy.stream");
    const float value = 1.5F;
    expect_streamed<BFloat16>(
        brain, [&] { fill(brain.view(), &value, DType::kFloat32); }, "copy.stream");
  });
}

// What an op overwrites was read into the cache just before; short rows would be written in parts of lines.
TEST(Stream, NotInPlaceNorShortRowsNorStrides) {
  Array<float> a({64, 1024}), narrow({4096, 16});
  fill_normal(a, 1);
  View column = a.view();
  column.sizes = {64, 512}, column.strides = {1024, 2};
  StreamAll all;
  reset_route_counts();
  const FlatInput in{a.begin(), false, DType::kFloat32};
  pointwise_flat(Pointwise::kNeg, DType::kFloat32, a.numel(), a.begin(), {&in, 1});
  const View same[] = {column};
  pointwise(Pointwise::kNeg, DType::kFloat32, column, same);
  View part = narrow.view();
  part.sizes = {4096, 8};
  Array<float> source({4096, 8});
  const View inputs[] = {source.view()};
  pointwise(Pointwise::kNeg, DType::kFloat32, part, inputs);
  EXPECT_EQ(times_run("pointwise.stream"), 0U);
}

TEST(Stream, OnlyWhatIsLarge) {
  EXPECT_FALSE(streams(int64_t{40} << 20));
  EXPECT_TRUE(streams(int64_t{50} << 20));
  EXPECT_THROW(set_stream_limit(-1), Error);
}

}  // namespace
}  // namespace deepseek::kernels

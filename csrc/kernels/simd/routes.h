// Which kernel ran: one counter for each route and SIMD target, so that a test can tell a fast path from its fallback.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "hwy/targets.h"

namespace deepseek::kernels {

enum class Route : uint8_t {
#define DS_ROUTE(name, key) k##name,
#define DS_PLAIN_ROUTE DS_ROUTE
#include "kernels/simd/routes.def"
#undef DS_ROUTE
#undef DS_PLAIN_ROUTE
  kCount
};

enum class RouteTarget : uint8_t { kAvx2, kAvx3, kCount };
constexpr RouteTarget route_target(int64_t hwy_target) {
  return hwy_target == HWY_AVX2 ? RouteTarget::kAvx2 : RouteTarget::kAvx3;
}

namespace detail {
using RouteCounts = std::array<std::array<std::atomic<uint64_t>, static_cast<size_t>(RouteTarget::kCount)>,
                               static_cast<size_t>(Route::kCount)>;
extern RouteCounts route_counts;
}  // namespace detail

// A load and a store, not a locked addition: calls that race may count once.
inline void count_route(Route route, RouteTarget target = RouteTarget::kAvx2) {
  auto& n = detail::route_counts[static_cast<size_t>(route)][static_cast<size_t>(target)];
  n.store(n.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}
// In code that foreach_target.h compiles.
#define DS_COUNT_ROUTE(name) \
  ::deepseek::kernels::count_route(::deepseek::kernels::Route::k##name, ::deepseek::kernels::route_target(HWY_TARGET))

// Every route and how often it ran since the last reset: "softmax.forward/AVX2", "softmax.forward/AVX3", and
// "copy.tiled", which has one version.
std::vector<std::pair<std::string, uint64_t>> route_counts();
void reset_route_counts();

}  // namespace deepseek::kernels

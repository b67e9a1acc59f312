// The slow twin of attention.h: one score at a time, in double, for every floating dtype. What float64 runs on, and
// what the fast kernels are tested against.
#pragma once

#include "kernels/attention/attention.h"

namespace deepseek::kernels {

// As in attention.h; lse, lse_low and delta may be doubles.
void attention_forward_plain(const Attention& a, const View& out, const View& lse, const View& lse_low = {});
void attention_backward_plain(const Attention& a, const View& grad_out, const View& lse, const View& delta,
                              const View& dq, const View& dk, const View& dv, const View& lse_low = {});

}  // namespace deepseek::kernels

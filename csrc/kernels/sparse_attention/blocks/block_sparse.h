// Attention to selected blocks of keys (NSA, Yuan et al. 2025; MoBA, Lu et al. 2025).
//
// Equal to attention.h under the mask of the selection, bit for bit: the same tiles of keys at the same positions, the
// same chunks merged in order. A tile that a row did not select is left out for that row, which changes nothing. (Of
// the gradients that holds for those of q; those of k and v, sums over rows, are the same sums in float, while bf16 dot
// products pair the rows at hand.) A block smaller than a tile costs as much as the tile.
//
// Tiles of keys are the outer loop: the rows that selected a tile are gathered into panels, whatever queries they
// belong to, so that a tile is read once for many rows.
#pragma once

#include "kernels/attention/attention.h"
#include "kernels/sparse_attention/blocks/block_selection.h"

namespace deepseek::kernels {

// `a` has neither mask, sinks, soft-cap nor dropout. Results as those of attention_forward and attention_backward.
void block_sparse_forward(const Attention& a, const BlockSelection& sel, const View& out, const View& lse);
void block_sparse_backward(const Attention& a, const BlockSelection& sel, const View& grad_out, const View& lse,
                           const View& delta, const View& dq, const View& dk, const View& dv,
                           bool add = false);  // to what dk and dv hold

// The slow twins, in double, by the mask.
void block_sparse_forward_plain(const Attention& a, const BlockSelection& sel, const View& out, const View& lse);
void block_sparse_backward_plain(const Attention& a, const BlockSelection& sel, const View& grad_out, const View& lse,
                                 const View& delta, const View& dq, const View& dk, const View& dv);

}  // namespace deepseek::kernels

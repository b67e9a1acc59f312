"""PyTorch's second names. Those whose first name is a method are methods too."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.public import second_names

absolute = _C.abs
arccos = _C.acos
arccosh = _C.acosh
arcsin = _C.asin
arcsinh = _C.asinh
arctan = _C.atan
arctan2 = _C.atan2
arctanh = _C.atanh
clip = _C.clamp
concat = _C.cat
concatenate = _C.cat
divide = _C.div
fix = _C.trunc
ger = _C.outer
greater = _C.gt
greater_equal = _C.ge
layer_norm = _C.layer_norm
less = _C.lt
less_equal = _C.le
moveaxis = _C.movedim
multiply = _C.mul
negative = _C.neg
not_equal = _C.ne
rms_norm = _C.rms_norm
row_stack = _C.vstack
subtract = _C.sub
true_divide = _C.div

absolute_ = _C.abs_
arccos_ = _C.acos_
arccosh_ = _C.acosh_
arcsin_ = _C.asin_
arcsinh_ = _C.asinh_
arctan_ = _C.atan_
arctan2_ = _C.atan2_
arctanh_ = _C.atanh_
clip_ = _C.clamp_
divide_ = _C.div_
fix_ = _C.trunc_
multiply_ = _C.mul_
negative_ = _C.neg_
subtract_ = _C.sub_
true_divide_ = _C.div_

second_names(globals())

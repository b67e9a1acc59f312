"""Public names of torch 2.13.0, by module or class. Written by pytests/parity/make_torch_names.py."""

from __future__ import annotations

NAMES = {
    "": """
AVG AcceleratorError BFloat16Storage BFloat16Tensor BoolStorage BoolTensor ByteStorage ByteTensor CharStorage
CharTensor ComplexDoubleStorage ComplexFloatStorage DisableTorchFunction DisableTorchFunctionSubclass DoubleStorage
DoubleTensor Event FatalError FloatStorage FloatTensor Generator GradScaler HalfStorage HalfTensor IntStorage
IntTensor JITException LongStorage LongTensor OutOfMemoryError QInt32Storage QInt8Storage QUInt2x4Storage
QUInt4x2Storage QUInt8Storage SUM ShortStorage ShortTensor Size Storage StorageBase Stream SymBool SymFloat SymInt
TYPE_CHECKING Tensor TypedStorage USE_GLOBAL_DEPS USE_RTLD_GLOBAL_WITH_LIBTORCH UntypedStorage _awaits _custom_op
_decomp _dispatch _dynamo _export _functorch _higher_order_ops _inductor _lazy _library _logging _native _numpy _prims
_prims_common _refs _strobelight _subclasses _vendor abs abs_ absolute accelerator acos acos_ acosh acosh_
adaptive_avg_pool1d adaptive_max_pool1d add addbmm addcdiv addcmul addmm addmv addmv_ addr adjoint
affine_grid_generator alias_copy all allclose alpha_dropout alpha_dropout_ amax amin aminmax amp angle any ao arange
arccos arccos_ arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_ arctan arctan2 arctan_ arctanh arctanh_
are_deterministic_algorithms_enabled argmax argmin argsort argwhere as_strided as_strided_ as_strided_copy
as_strided_scatter as_tensor asarray asin asin_ asinh asinh_ atan atan2 atan_ atanh atanh_ atleast_1d atleast_2d
atleast_3d autocast autocast_decrement_nesting autocast_increment_nesting autograd avg_pool1d backends baddbmm
bartlett_window batch_norm batch_norm_backward_elemt batch_norm_backward_reduce batch_norm_elemt
batch_norm_gather_stats batch_norm_gather_stats_with_counts batch_norm_stats batch_norm_update_stats bernoulli
bfloat16 bilinear binary_cross_entropy_with_logits bincount binomial bit bits16 bits1x8 bits2x4 bits4x2 bits8
bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor blackman_window block_diag bmm
bool broadcast_shapes broadcast_tensors broadcast_to bucketize can_cast cartesian_prod cat ccol_indices_copy cdist
cdouble ceil ceil_ celu celu_ cfloat chain_matmul chalf channel_shuffle channels_last channels_last_3d cholesky
cholesky_inverse cholesky_solve choose_qparams_optimized chunk clamp clamp_ clamp_max clamp_max_ clamp_min clamp_min_
classes classproperty clear_autocast_cache clip clip_ clone col_indices_copy column_stack combinations compile
compiled_with_cxx11_abi compiler complex complex128 complex32 complex64 concat concatenate cond conj conj_physical
conj_physical_ constant_pad_nd contiguous_format contrib conv1d conv2d conv3d conv_tbc conv_transpose1d
conv_transpose2d conv_transpose3d convolution copysign corrcoef cos cos_ cosh cosh_ cosine_embedding_loss
cosine_similarity count_nonzero cov cpp cpu cross crow_indices_copy ctc_loss cuda cudnn_affine_grid_generator
cudnn_batch_norm cudnn_convolution cudnn_convolution_add_relu cudnn_convolution_relu cudnn_convolution_transpose
cudnn_grid_sampler cudnn_is_acceptable cummax cummin cumprod cumsum cumulative_trapezoid default_generator deg2rad
deg2rad_ dequantize det detach detach_ detach_copy device diag diag_embed diagflat diagonal diagonal_copy
diagonal_scatter diff digamma dist distributed distributions div divide dot double dropout dropout_ dsmm dsplit dstack
dtype e eig einsum embedding embedding_bag embedding_renorm_ empty empty_like empty_permuted empty_quantized
empty_strided enable_grad eq equal erf erf_ erfc erfc_ erfinv exp exp2 exp2_ exp_ expand_copy expm1 expm1_ export eye
fake_quantize_per_channel_affine fake_quantize_per_tensor_affine fbgemm_linear_fp16_weight
fbgemm_linear_fp16_weight_fp32_activation fbgemm_linear_int8_weight fbgemm_linear_int8_weight_fp32_activation
fbgemm_linear_quantize_weight fbgemm_pack_gemm_matrix_fp16 fbgemm_pack_quantized_matrix feature_alpha_dropout
feature_alpha_dropout_ feature_dropout feature_dropout_ fft fill fill_ finfo fix fix_ flatten flip fliplr flipud float
float16 float32 float4_e2m1fn_x2 float64 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu
float_power floor floor_ floor_divide fmax fmin fmod fork frac frac_ frexp frobenius_norm from_dlpack from_file
from_numpy frombuffer full full_like func functional fused_moving_avg_obs_fake_quant futures fx gather gcd gcd_ ge
geqrf ger get_autocast_cpu_dtype get_autocast_dtype get_autocast_gpu_dtype get_autocast_ipu_dtype
get_autocast_xla_dtype get_default_device get_default_dtype get_deterministic_debug_mode get_device get_device_module
get_file_path get_float32_matmul_precision get_num_interop_threads get_num_threads get_rng_state gradient greater
greater_equal grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru gru_cell gt half hamming_window hann_window
hardshrink has_lapack has_mkl has_openmp has_spectral hash_tensor heaviside hinge_embedding_loss histc histogram
histogramdd hsmm hsplit hspmm hstack hub hypot i0 i0_ igamma igammac iinfo imag import_ir_module
import_ir_module_from_buffer index_add index_copy index_fill index_put index_put_ index_reduce index_select
indices_copy inf inference_mode init_num_threads initial_seed inner instance_norm int int1 int16 int2 int3 int32 int4
int5 int6 int64 int7 int8 int_repr inverse is_anomaly_check_nan_enabled is_anomaly_enabled is_autocast_cache_enabled
is_autocast_cpu_enabled is_autocast_enabled is_autocast_ipu_enabled is_autocast_xla_enabled is_complex is_conj
is_deterministic_algorithms_warn_only_enabled is_distributed is_floating_point is_grad_enabled is_inference
is_inference_mode_enabled is_neg is_nonzero is_same_size is_signed is_storage is_tensor is_vulkan_available
is_warn_always_enabled isclose isfinite isin isinf isnan isneginf isposinf isreal istft jagged jit kaiser_window
kl_div kron kthvalue layer_norm layout lcm lcm_ ldexp ldexp_ le legacy_contiguous_format lerp less less_equal lgamma
library linalg linspace load lobpcg log log10 log10_ log1p log1p_ log2 log2_ log_ log_softmax logaddexp logaddexp2
logcumsumexp logdet logical_and logical_not logical_or logical_xor logit logit_ logspace logsumexp long lstm lstm_cell
lstsq lt lu lu_solve lu_unpack manual_seed margin_ranking_loss masked masked_fill masked_scatter masked_select matmul
matrix_exp matrix_power matrix_rank max max_pool1d max_pool1d_with_indices max_pool2d max_pool3d maximum mean median
memory_format merge_type_from_type_comment meshgrid min minimum miopen_batch_norm miopen_convolution
miopen_convolution_add_relu miopen_convolution_relu miopen_convolution_transpose miopen_ctc_loss
miopen_depthwise_convolution miopen_rnn mkldnn_adaptive_avg_pool2d mkldnn_convolution mkldnn_linear_backward_weights
mkldnn_max_pool2d mkldnn_max_pool3d mkldnn_rnn_layer mm mode monitor moveaxis movedim mps msort mtia mul multinomial
multiply multiprocessing mv mvlgamma nan nan_to_num nan_to_num_ nanmean nanmedian nanquantile nansum narrow
narrow_copy native_batch_norm native_channel_shuffle native_dropout native_group_norm native_layer_norm native_norm
nativert ne neg neg_ negative negative_ nested newaxis nextafter nn no_grad nonzero nonzero_static norm
norm_except_dim normal not_equal nuclear_norm numa numel ones ones_like onnx ops optim orgqr ormqr outer overrides
package pairwise_distance parse_ir parse_schema parse_type_comment pca_lowrank pdist per_channel_affine
per_channel_affine_float_qparams per_channel_symmetric per_tensor_affine per_tensor_symmetric permute permute_copy pi
pinverse pixel_shuffle pixel_unshuffle poisson poisson_nll_loss polar polygamma positive pow prelu
prepare_multiprocessing_environment preserve_format prod profiler profiler_allow_cudagraph_cupti_lazy_reinit_cuda12
promote_types put q_per_channel_axis q_per_channel_scales q_per_channel_zero_points q_scale q_zero_point qint32 qint8
qr qscheme quantile quantization quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic
quantized_batch_norm quantized_gru quantized_gru_cell quantized_lstm quantized_lstm_cell quantized_max_pool1d
quantized_max_pool2d quantized_max_pool3d quantized_rnn_relu_cell quantized_rnn_tanh_cell quasirandom quint2x4
quint4x2 quint8 rad2deg rad2deg_ rand rand_like randint randint_like randn randn_like random randperm range ravel real
reciprocal reciprocal_ relu relu_ remainder renorm repeat_interleave reshape resize_as_ resize_as_sparse_ resolve_conj
resolve_neg result_type return_types rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90 round round_
row_indices_copy row_stack rrelu rrelu_ rsqrt rsqrt_ rsub saddmm save scalar_tensor scatter scatter_add scatter_reduce
searchsorted seed segment_reduce select select_copy select_scatter selu selu_ serialization set_anomaly_enabled
set_autocast_cache_enabled set_autocast_cpu_dtype set_autocast_cpu_enabled set_autocast_dtype set_autocast_enabled
set_autocast_gpu_dtype set_autocast_ipu_dtype set_autocast_ipu_enabled set_autocast_xla_dtype set_autocast_xla_enabled
set_default_device set_default_dtype set_default_tensor_type set_deterministic_debug_mode set_float32_matmul_precision
set_flush_denormal set_grad_enabled set_num_interop_threads set_num_threads set_printoptions set_rng_state
set_warn_always sgn short sigmoid sigmoid_ sign signal signbit sin sin_ sinc sinc_ sinh sinh_ slice_copy slice_inverse
slice_scatter slogdet smm softmax solve sort sparse sparse_bsc sparse_bsc_tensor sparse_bsr sparse_bsr_tensor
sparse_compressed_tensor sparse_coo sparse_coo_tensor sparse_csc sparse_csc_tensor sparse_csr sparse_csr_tensor
special split split_copy split_with_sizes split_with_sizes_copy spmm sqrt sqrt_ square square_ squeeze squeeze_copy
sspaddmm stack std std_mean stft storage strided sub subtract sum svd svd_lowrank swapaxes swapdims
sym_constrain_range sym_constrain_range_for_size sym_float sym_fresh_size sym_int sym_ite sym_max sym_min sym_not
sym_sqrt sym_sum symeig t t_copy take take_along_dim tan tan_ tanh tanh_ tensor tensor_split tensordot testing
thread_safe_generator threshold threshold_ tile to_dlpack topk torch torch_version trace transpose transpose_copy
trapezoid trapz triangular_solve tril tril_indices triplet_margin_loss triu triu_indices true_divide trunc trunc_
typename types uint1 uint16 uint2 uint3 uint32 uint4 uint5 uint6 uint64 uint7 uint8 unbind unbind_copy unflatten
unfold_copy unify_type_list unique unique_consecutive unravel_index unsafe_chunk unsafe_split unsafe_split_with_sizes
unsqueeze unsqueeze_copy use_deterministic_algorithms utils values_copy vander var var_mean vdot version
view_as_complex view_as_complex_copy view_as_real view_as_real_copy view_copy vmap vsplit vstack wait where while_loop
windows xlogy xlogy_ xpu zero_ zeros zeros_like
""",
    "accelerator": """
current_accelerator current_device_idx current_device_index current_stream device_count device_index empty_cache
empty_host_cache get_device_capability get_memory_info graphs is_available max_memory_allocated max_memory_reserved
memory memory_allocated memory_reserved memory_stats reset_accumulated_memory_stats reset_peak_memory_stats
set_device_idx set_device_index set_stream synchronize torch
""",
    "amp": """
GradScaler autocast autocast_mode custom_bwd custom_fwd grad_scaler is_autocast_available
""",
    "amp.autocast_mode": """
HAS_NUMPY autocast autocast_decorator custom_bwd custom_fwd is_autocast_available torch
""",
    "amp.grad_scaler": """
GradScaler OptState TYPE_CHECKING torch
""",
    "autograd": """
Function NestedIOFunction Variable anomaly_mode backward detect_anomaly enable_grad enforce_grad_layout_policy
forward_ad function functional grad grad_mode gradcheck gradgradcheck graph handle_torch_function has_torch_function
inference_mode is_multithreading_enabled is_tensor_like is_view_replay_enabled kineto_available no_grad profiler
profiler_legacy profiler_util set_detect_anomaly set_grad_enabled set_multithreading_enabled torch variable
""",
    "autograd.anomaly_mode": """
detect_anomaly set_detect_anomaly torch
""",
    "autograd.function": """
BackwardCFunction Function FunctionCtx FunctionMeta InplaceFunction NestedIOFunction custom_function_call hooks
once_differentiable torch
""",
    "autograd.functional": """
fwAD hessian hvp jacobian jvp torch vhp vjp
""",
    "autograd.grad_mode": """
enable_grad enforce_grad_layout_policy inference_mode no_grad set_grad_enabled set_multithreading_enabled torch
""",
    "autograd.graph": """
GradientEdge Node RemovableHandle TYPE_CHECKING TorchDispatchMode Variable allow_mutation_on_saved_tensors
disable_saved_tensors_hooks get_gradient_edge increment_version region_activation_memory_budget
register_multi_grad_hook save_on_cpu saved_tensors_hooks set_override_stale_capture_stream
set_warn_on_accumulate_grad_stream_mismatch torch
""",
    "backends": """
ContextProp GenericModule PropModule cpu cuda cudnn cusparselt disable_global_flags flags flags_frozen kleidiai mha
miopen mkl mkldnn mps nnpack openmp opt_einsum python_native quantized set_flags torch xeon xnnpack
""",
    "backends.cuda": """
allow_fp16_bf16_reduction_math_sdp blas_workspace_size can_use_cudnn_attention can_use_efficient_attention
can_use_flash_attention cuBLASModule cuFFTPlanCache cuFFTPlanCacheAttrContextProp cuFFTPlanCacheManager
cublas_workspace_size cublaslt_workspace_size cudnn_sdp_enabled cufft_plan_cache enable_cudnn_sdp enable_flash_sdp
enable_math_sdp enable_mem_efficient_sdp flash_sdp_enabled fp16_bf16_reduction_math_sdp_allowed is_built
is_ck_sdpa_available is_flash_attention_available math_sdp_enabled matmul mem_efficient_sdp_enabled
preferred_blas_library preferred_linalg_library preferred_rocm_fa_library sdp_kernel torch
""",
    "backends.cudnn": """
ContextProp CudnnModule PropModule allow_tf32 benchmark benchmark_limit conv deterministic enabled flags is_acceptable
is_available rnn set_flags torch version
""",
    "backends.mkl": """
is_available torch verbose
""",
    "backends.mkldnn": """
ContextProp MkldnnModule PropModule TYPE_CHECKING allow_tf32 conv deterministic enabled flags is_acl_available
is_available matmul rnn set_flags torch verbose
""",
    "backends.mps": """
TYPE_CHECKING get_core_count get_name is_available is_built is_macos13_or_newer is_macos_or_newer torch
""",
    "backends.openmp": """
is_available torch
""",
    "cpu": """
Event Stream StreamContext amp current_device current_stream device_count get_capabilities is_available is_initialized
set_device stream synchronize torch
""",
    "cpu.amp": """
GradScaler autocast autocast_mode grad_scaler
""",
    "cuda": """
AcceleratorError BFloat16Storage BFloat16Tensor BoolStorage BoolTensor ByteStorage ByteTensor CUDAGraph
CUDAPluggableAllocator CharStorage CharTensor ComplexDoubleStorage ComplexFloatStorage CudaError DeferredCudaCallError
DoubleStorage DoubleTensor Event ExternalStream FloatStorage FloatTensor GreenContext HalfStorage HalfTensor
IntStorage IntTensor LongStorage LongTensor MemPool OutOfMemoryError ShortStorage ShortTensor Stream StreamContext
TYPE_CHECKING amp caching_allocator_alloc caching_allocator_delete caching_allocator_disabled caching_allocator_enable
can_device_access_peer change_current_allocator check_error classproperty clock_rate comm cudaStatus cudart
current_blas_handle current_device current_solver_handle current_stream default_stream device device_count
device_memory_used device_of empty_cache gds get_allocator_backend get_arch_list get_device_capability get_device_name
get_device_properties get_gencode_flags get_per_process_memory_fraction get_rng_state get_rng_state_all
get_stream_from_external get_sync_debug_mode graph graph_pool_handle graphs green_contexts has_half has_magma
host_memory_stats host_memory_stats_as_nested_dict init initial_seed ipc_collect is_available is_bf16_supported
is_current_stream_capturing is_initialized is_tf32_supported jiterator list_gpu_processes make_graphed_callables
manual_seed manual_seed_all max_memory_allocated max_memory_cached max_memory_reserved mem_get_info memory
memory_allocated memory_cached memory_reserved memory_snapshot memory_stats memory_stats_as_nested_dict memory_summary
memory_usage nccl nvtx power_draw profiler random reset_accumulated_host_memory_stats reset_accumulated_memory_stats
reset_max_memory_allocated reset_max_memory_cached reset_peak_host_memory_stats reset_peak_memory_stats seed seed_all
set_device set_per_process_memory_fraction set_rng_state set_rng_state_all set_stream set_sync_debug_mode sparse
stream streams synchronize temperature torch tunable use_mem_pool utilization
""",
    "cuda.amp": """
GradScaler amp_definitely_not_available autocast autocast_mode common custom_bwd custom_fwd grad_scaler
""",
    "jit": """
Attribute Error ONNXTracedModule RecursiveScriptClass RecursiveScriptModule ScriptModule ScriptWarning
TopLevelTracedModule TracedModule TracerWarning TracingCheckError annotate annotations enable_onednn_fusion export
export_opnames fork freeze frontend fuser generate_bytecode ignore interface is_scripting is_tracing isinstance
jit_module_from_flatbuffer last_executed_optimized_graph load mobile onednn_fusion_enabled optimize_for_inference
optimized_execution quantized run_frozen_optimizations save save_jit_module_to_flatbuffer script script_if_tracing
script_method set_fusion_strategy set_module strict_fusion supported_ops torch trace trace_module
unsupported_tensor_ops unused wait
""",
    "linalg": """
LinAlgError cholesky cholesky_ex cond cross det diagonal eig eigh eigvals eigvalsh householder_product inv inv_ex
ldl_factor ldl_factor_ex ldl_solve lstsq lu lu_factor lu_factor_ex lu_solve matmul matrix_exp matrix_norm matrix_power
matrix_rank multi_dot norm pinv qr slogdet solve solve_ex solve_triangular svd svdvals tensorinv tensorsolve vander
vecdot vector_norm
""",
    "nn": """
AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveLogSoftmaxWithLoss AdaptiveMaxPool1d AdaptiveMaxPool2d
AdaptiveMaxPool3d AlphaDropout AvgPool1d AvgPool2d AvgPool3d BCELoss BCEWithLogitsLoss BatchNorm1d BatchNorm2d
BatchNorm3d Bilinear Buffer CELU CTCLoss ChannelShuffle CircularPad1d CircularPad2d CircularPad3d ConstantPad1d
ConstantPad2d ConstantPad3d Container Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d
CosineEmbeddingLoss CosineSimilarity CrossEntropyLoss CrossMapLRN2d DataParallel Dropout Dropout1d Dropout2d Dropout3d
ELU Embedding EmbeddingBag FeatureAlphaDropout Flatten Fold FractionalMaxPool2d FractionalMaxPool3d GELU GLU GRU
GRUCell GaussianNLLLoss GroupNorm Hardshrink Hardsigmoid Hardswish Hardtanh HingeEmbeddingLoss HuberLoss Identity
InstanceNorm1d InstanceNorm2d InstanceNorm3d KLDivLoss L1Loss LPPool1d LPPool2d LPPool3d LSTM LSTMCell LayerNorm
LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d LazyConv1d LazyConv2d LazyConv3d LazyConvTranspose1d
LazyConvTranspose2d LazyConvTranspose3d LazyInstanceNorm1d LazyInstanceNorm2d LazyInstanceNorm3d LazyLinear LeakyReLU
Linear LinearCrossEntropyLoss LinearCrossEntropyOptions LocalResponseNorm LogSigmoid LogSoftmax MSELoss
MarginRankingLoss MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d Mish Module ModuleDict ModuleList
MultiLabelMarginLoss MultiLabelSoftMarginLoss MultiMarginLoss MultiheadAttention NLLLoss NLLLoss2d PReLU
PairwiseDistance Parameter ParameterDict ParameterList PixelShuffle PixelUnshuffle PoissonNLLLoss RMSNorm RNN RNNBase
RNNCell RNNCellBase RReLU ReLU ReLU6 ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d
ReplicationPad3d SELU Sequential SiLU Sigmoid SmoothL1Loss SoftMarginLoss Softmax Softmax2d Softmin Softplus
Softshrink Softsign SyncBatchNorm Tanh Tanhshrink Threshold Transformer TransformerDecoder TransformerDecoderLayer
TransformerEncoder TransformerEncoderLayer TripletMarginLoss TripletMarginWithDistanceLoss Unflatten Unfold
UninitializedBuffer UninitializedParameter Upsample UpsamplingBilinear2d UpsamplingNearest2d ZeroPad1d ZeroPad2d
ZeroPad3d attention backends common_types cpp factory_kwargs functional grad init intrinsic modules parallel parameter
qat quantizable quantized utils
""",
    "nn.Module": """
T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches eval
extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules mtia
named_buffers named_children named_modules named_parameters parameters register_backward_hook register_buffer
register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule share_memory
state_dict to to_empty train type xpu zero_grad
""",
    "nn.functional": """
BroadcastingList1 BroadcastingList2 BroadcastingList3 TYPE_CHECKING Tensor adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool1d_with_indices adaptive_max_pool2d
adaptive_max_pool2d_with_indices adaptive_max_pool3d adaptive_max_pool3d_with_indices affine_grid alpha_dropout
assert_int_or_pair avg_pool1d avg_pool2d avg_pool3d batch_norm bilinear binary_cross_entropy
binary_cross_entropy_with_logits boolean_dispatch celu celu_ channel_shuffle conv1d conv2d conv3d conv_tbc
conv_transpose1d conv_transpose2d conv_transpose3d cosine_embedding_loss cosine_similarity cross_entropy ctc_loss
dropout dropout1d dropout2d dropout3d elu elu_ embedding embedding_bag feature_alpha_dropout fold
fractional_max_pool2d fractional_max_pool2d_with_indices fractional_max_pool3d fractional_max_pool3d_with_indices
gaussian_nll_loss gelu glu grad grid_sample group_norm grouped_mm gumbel_softmax handle_torch_function hardshrink
hardsigmoid hardswish hardtanh hardtanh_ has_torch_function has_torch_function_unary has_torch_function_variadic
hinge_embedding_loss huber_loss instance_norm interpolate kl_div l1_loss layer_norm leaky_relu leaky_relu_ linear
linear_cross_entropy local_response_norm log_softmax logsigmoid lp_pool1d lp_pool2d lp_pool3d margin_ranking_loss
max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool1d
max_unpool2d max_unpool3d mish mse_loss multi_head_attention_forward multi_margin_loss multilabel_margin_loss
multilabel_soft_margin_loss native_channel_shuffle nll_loss normalize one_hot pad pairwise_distance pdist
pixel_shuffle pixel_unshuffle poisson_nll_loss prelu relu relu6 relu_ rms_norm rrelu rrelu_
scaled_dot_product_attention scaled_grouped_mm scaled_mm selu selu_ sigmoid silu smooth_l1_loss soft_margin_loss
softmax softmin softplus softshrink softsign tanh tanhshrink threshold threshold_ torch triplet_margin_loss
triplet_margin_with_distance_loss unfold upsample upsample_bilinear upsample_nearest
""",
    "nn.init": """
Tensor calculate_gain constant constant_ dirac dirac_ eye eye_ kaiming_normal kaiming_normal_ kaiming_uniform
kaiming_uniform_ normal normal_ ones_ orthogonal orthogonal_ sparse sparse_ torch trunc_normal_ uniform uniform_
xavier_normal xavier_normal_ xavier_uniform xavier_uniform_ zeros_
""",
    "nn.modules": """
AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveLogSoftmaxWithLoss AdaptiveMaxPool1d AdaptiveMaxPool2d
AdaptiveMaxPool3d AlphaDropout AvgPool1d AvgPool2d AvgPool3d BCELoss BCEWithLogitsLoss BatchNorm1d BatchNorm2d
BatchNorm3d Bilinear CELU CTCLoss ChannelShuffle CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d
ConstantPad3d Container Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d CosineEmbeddingLoss
CosineSimilarity CrossEntropyLoss CrossMapLRN2d Dropout Dropout1d Dropout2d Dropout3d ELU Embedding EmbeddingBag
FeatureAlphaDropout Flatten Fold FractionalMaxPool2d FractionalMaxPool3d GELU GLU GRU GRUCell GaussianNLLLoss
GroupNorm Hardshrink Hardsigmoid Hardswish Hardtanh HingeEmbeddingLoss HuberLoss Identity InstanceNorm1d
InstanceNorm2d InstanceNorm3d KLDivLoss L1Loss LPPool1d LPPool2d LPPool3d LSTM LSTMCell LayerNorm LazyBatchNorm1d
LazyBatchNorm2d LazyBatchNorm3d LazyConv1d LazyConv2d LazyConv3d LazyConvTranspose1d LazyConvTranspose2d
LazyConvTranspose3d LazyInstanceNorm1d LazyInstanceNorm2d LazyInstanceNorm3d LazyLinear LeakyReLU Linear
LinearCrossEntropyLoss LinearCrossEntropyOptions LocalResponseNorm LogSigmoid LogSoftmax MSELoss MarginRankingLoss
MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d Mish Module ModuleDict ModuleList
MultiLabelMarginLoss MultiLabelSoftMarginLoss MultiMarginLoss MultiheadAttention NLLLoss NLLLoss2d PReLU
PairwiseDistance ParameterDict ParameterList PixelShuffle PixelUnshuffle PoissonNLLLoss RMSNorm RNN RNNBase RNNCell
RNNCellBase RReLU ReLU ReLU6 ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d
ReplicationPad3d SELU Sequential SiLU Sigmoid SmoothL1Loss SoftMarginLoss Softmax Softmax2d Softmin Softplus
Softshrink Softsign SyncBatchNorm Tanh Tanhshrink Threshold Transformer TransformerDecoder TransformerDecoderLayer
TransformerEncoder TransformerEncoderLayer TripletMarginLoss TripletMarginWithDistanceLoss Unflatten Unfold Upsample
UpsamplingBilinear2d UpsamplingNearest2d ZeroPad1d ZeroPad2d ZeroPad3d activation adaptive batchnorm channelshuffle
container conv distance dropout flatten fold instancenorm lazy linear linear_cross_entropy
linear_cross_entropy_options loss module normalization padding pixelshuffle pooling rnn sparse transformer upsampling
utils
""",
    "nn.modules.module": """
BackwardHook Buffer Module Parameter RemovableHandle Tensor device dtype is_traceable_wrapper_subclass
register_module_backward_hook register_module_buffer_registration_hook register_module_forward_hook
register_module_forward_pre_hook register_module_full_backward_hook register_module_full_backward_pre_hook
register_module_module_registration_hook register_module_parameter_registration_hook torch
""",
    "nn.parameter": """
Buffer Parameter UninitializedBuffer UninitializedParameter UninitializedTensorMixin is_lazy torch
""",
    "nn.utils": """
clip_grad clip_grad_norm clip_grad_norm_ clip_grad_value_ clip_grads_with_norm_ convert_conv2d_weight_memory_format
convert_conv3d_weight_memory_format convert_parameters fuse_conv_bn_eval fuse_conv_bn_weights fuse_linear_bn_eval
fuse_linear_bn_weights fusion get_total_norm init memory_format parameters_to_vector parametrizations parametrize
prune remove_spectral_norm remove_weight_norm rnn skip_init spectral_norm stateless vector_to_parameters weight_norm
""",
    "optim": """
ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax LBFGS Muon NAdam Optimizer RAdam RMSprop Rprop SGD SparseAdam
adadelta adagrad adam adamax adamw asgd lbfgs lr_scheduler nadam optimizer radam rmsprop rprop sgd sparse_adam
swa_utils swap_in_optimizer_params_and_state
""",
    "optim.Optimizer": """
OptimizerPostHook OptimizerPreHook add_param_group load_state_dict profile_hook_step
register_load_state_dict_post_hook register_load_state_dict_pre_hook register_state_dict_post_hook
register_state_dict_pre_hook register_step_post_hook register_step_pre_hook state_dict step zero_grad
""",
    "optim.adam": """
Adam Optimizer Tensor adam torch
""",
    "optim.lr_scheduler": """
ChainedScheduler ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR LRScheduler LambdaLR
LinearLR MultiStepLR MultiplicativeLR OneCycleLR Optimizer PolynomialLR ReduceLROnPlateau SequentialLR StepLR
TYPE_CHECKING Tensor inf
""",
    "optim.optimizer": """
Optimizer RemovableHandle hooks register_optimizer_step_post_hook register_optimizer_step_pre_hook required torch
""",
    "optim.sgd": """
Optimizer SGD Tensor sgd torch
""",
    "quantization": """
DeQuantStub FakeQuantize FakeQuantizeBase FixedQParamsFakeQuantize FusedMovingAvgObsFakeQuantize HistogramObserver
MinMaxObserver MovingAverageMinMaxObserver MovingAveragePerChannelMinMaxObserver NoopObserver ObserverBase
PerChannelMinMaxObserver PlaceholderObserver QConfig QConfigAny QConfigDynamic QuantStub QuantType QuantWrapper
RecordingObserver add_quant_dequant convert convert_dynamic_jit convert_jit default_activation_only_qconfig
default_debug_observer default_debug_qconfig default_dynamic_qconfig default_dynamic_quant_observer default_eval_fn
default_fake_quant default_fixed_qparams_range_0to1_fake_quant default_fixed_qparams_range_neg1to1_fake_quant
default_float_qparams_observer default_fused_act_fake_quant default_fused_per_channel_wt_fake_quant
default_fused_wt_fake_quant default_histogram_fake_quant default_histogram_observer default_observer
default_per_channel_qconfig default_per_channel_weight_fake_quant default_per_channel_weight_observer
default_placeholder_observer default_qat_qconfig default_qat_qconfig_v2 default_qconfig default_weight_fake_quant
default_weight_observer default_weight_only_qconfig disable_fake_quant disable_observer enable_fake_quant
enable_observer fake_quantize float16_dynamic_qconfig float16_static_qconfig float_qparams_weight_only_qconfig
fuse_conv_bn fuse_conv_bn_jit fuse_conv_bn_relu fuse_linear_bn fuse_modules fuser_method_mappings fx
get_default_compare_output_module_list get_default_dynamic_quant_module_mappings
get_default_float_to_quantized_operator_mappings get_default_qat_module_mappings get_default_qat_qconfig
get_default_qconfig get_default_qconfig_propagation_list get_default_static_quant_module_mappings
get_dynamic_quant_module_class get_fuser_method get_observer_state_dict get_quantized_operator
get_static_quant_module_class load_observer_state_dict no_observer_set observer per_channel_dynamic_qconfig prepare
prepare_dynamic_jit prepare_jit prepare_qat propagate_qconfig_ qconfig qconfig_equals quant_type quantization_mappings
quantize quantize_dynamic quantize_dynamic_jit quantize_fx quantize_jit quantize_qat script_qconfig
script_qconfig_dict stubs swap_module utils
""",
    "random": """
TYPE_CHECKING default_generator fork_rng get_rng_state initial_seed manual_seed seed set_rng_state
thread_safe_generator torch
""",
    "return_types": """
SequenceKey aminmax aminmax_out cummax cummax_out cummin cummin_out frexp frexp_out geqrf geqrf_out histogram
histogram_out histogramdd kthvalue kthvalue_out linalg_cholesky_ex linalg_cholesky_ex_out linalg_eig linalg_eig_out
linalg_eigh linalg_eigh_out linalg_inv_ex linalg_inv_ex_out linalg_ldl_factor linalg_ldl_factor_ex
linalg_ldl_factor_ex_out linalg_ldl_factor_out linalg_lstsq linalg_lstsq_out linalg_lu linalg_lu_factor
linalg_lu_factor_ex linalg_lu_factor_ex_out linalg_lu_factor_out linalg_lu_out linalg_qr linalg_qr_out linalg_slogdet
linalg_slogdet_out linalg_solve_ex linalg_solve_ex_out linalg_svd linalg_svd_out lu_unpack lu_unpack_out max max_out
median median_out min min_out mode mode_out nanmedian nanmedian_out pytree_register_structseq qr qr_out
register_pytree_node return_types slogdet slogdet_out sort sort_out svd svd_out topk topk_out torch triangular_solve
triangular_solve_out
""",
    "testing": """
assert_allclose assert_close make_tensor
""",
    "utils": """
ThroughputBenchmark backcompat backend_registration benchmark bundled_inputs checkpoint collect_env cpp_backtrace
cpp_extension data debug_log deterministic dlpack file_baton flop_counter generate_methods_for_privateuse1_backend
get_cpp_backtrace hipify hooks jit mkldnn mobile_optimizer model_dump model_zoo module_tracker
rename_privateuse1_backend serialization set_module show_pickle swap_tensors tensorboard throughput_benchmark torch
viz weak
""",
    "utils.checkpoint": """
CheckpointError CheckpointFunction CheckpointPolicy DefaultDeviceType GraphExecGroup LoggingTensorMode
SelectiveCheckpointContext TYPE_CHECKING TorchDispatchMode capture_logs check_backward_validity checkpoint
checkpoint_sequential create_selective_checkpoint_contexts detach_variable fx_traceback get_device_states
noop_context_fn set_checkpoint_debug_enabled set_checkpoint_early_stop set_device_states torch tree_map
""",
    "utils.data": """
BatchSampler ChainDataset ConcatDataset DFIterDataPipe DataChunk DataLoader Dataset DistributedSampler IterDataPipe
IterableDataset MapDataPipe RandomSampler Sampler SequentialSampler StackDataset Subset SubsetRandomSampler
TensorDataset WeightedRandomSampler argument_validation backward_compatibility dataloader datapipes dataset
default_collate default_convert distributed functional_datapipe get_worker_info graph graph_settings
guaranteed_datapipes_determinism non_deterministic random_split runtime_validation runtime_validation_disabled sampler
""",
    "utils.data.dataloader": """
BatchSampler DataLoader Dataset ExceptionWrapper IterDataPipe IterableDataset MapDataPipe RandomSampler Sampler
SequentialSampler TYPE_CHECKING default_collate default_convert dist get_worker_info torch
""",
    "utils.data.dataset": """
ChainDataset ConcatDataset Dataset Generator IterableDataset StackDataset Subset Tensor TensorDataset
default_generator random_split randperm
""",
    "utils.data.sampler": """
BatchSampler RandomSampler Sampler SequentialSampler SubsetRandomSampler WeightedRandomSampler torch
""",
    "version": """
cuda debug hip rocm xpu
""",
    "xpu": """
Event MemPool Stream StreamContext TYPE_CHECKING XPUGraph XPUPluggableAllocator can_device_access_peer
change_current_allocator clock_rate current_device current_stream device device_count device_memory_used device_of
empty_cache get_arch_list get_device_capability get_device_name get_device_properties get_gencode_flags
get_per_process_memory_fraction get_rng_state get_rng_state_all get_stream_from_external graph graph_pool_handle
graphs init initial_seed is_available is_bf16_supported is_current_stream_capturing is_initialized is_tf32_supported
make_graphed_callables manual_seed manual_seed_all max_memory_allocated max_memory_reserved mem_get_info memory
memory_allocated memory_reserved memory_snapshot memory_stats memory_stats_as_nested_dict memory_usage power_draw
random reset_accumulated_memory_stats reset_peak_memory_stats seed seed_all set_device set_per_process_memory_fraction
set_rng_state set_rng_state_all set_stream stream streams synchronize temperature torch use_mem_pool utilization
""",
}

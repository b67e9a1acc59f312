// Random generators, threads, memory counters, default dtype, and what this build is made of.
#include <gnu/libc-version.h>

#include "base/version.h"
#include "kernels/gemm/matmul.h"
#include "kernels/pointwise/activations.h"
#include "kernels/quant/quant_format.h"
#include "kernels/simd/build_info.h"
#include "kernels/simd/routes.h"
#include "kernels/simd/stream.h"
#include "python/bind/bind.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;

Tensor generator_state(const Generator& g) {
  refuse_capture("a generator's state is read");
  const Tensor t = Tensor::empty({16}, DType::kUInt8);
  const RngState s = g.state();
  std::memcpy(t.data_ptr(), &s.seed, 8);
  std::memcpy(t.data<char>() + 8, &s.offset, 8);
  return t;
}

void set_generator_state(Generator& g, const Tensor& state) {
  refuse_capture("a generator's state is set");
  DS_CHECK_AS(TypeError, state.defined() && state.dtype() == DType::kUInt8, "RNG state must be a uint8 tensor");
  DS_CHECK(state.numel() == 16 && state.is_contiguous(), "RNG state is wrong size: expected 16 bytes, got ",
           state.numel());
  RngState s;
  std::memcpy(&s.seed, state.data_ptr(), 8);
  std::memcpy(&s.offset, state.data<char>() + 8, 8);
  g.set_state(s);
}

uint64_t seed_from(const py::object& seed) {
  // Negative seeds wrap, as in PyTorch.
  const py::object masked = py::int_(seed) & py::cast(0xffffffffffffffffull);
  return masked.cast<uint64_t>();
}

}  // namespace

Generator* generator_of(PyObject* o) {
  return py::isinstance<Generator>(o) ? py::handle(o).cast<Generator*>() : nullptr;
}

void bind_runtime(PyObject* module) {
  auto m = py::reinterpret_borrow<py::module_>(module);
  py::class_<Generator>(m, "Generator", "A stream of random numbers: a function of (seed, offset) only.")
      .def(py::init([](const py::object& device) {
             check_device(device.ptr());
             return std::make_unique<Generator>();
           }),
           py::arg("device") = py::none())
      .def(
          "manual_seed",
          [](py::object self, const py::object& seed) {
            refuse_capture("a generator is seeded");
            self.cast<Generator&>().manual_seed(seed_from(seed));
            return self;
          },
          py::arg("seed"), "Restart the stream at `seed`.")
      .def("initial_seed",
           [](const Generator& g) {
             refuse_capture("a generator's seed is read");
             return g.initial_seed();
           })
      .def(
          "seed",
          [](Generator& g) {
            refuse_capture("a generator is seeded");
            const auto entropy = py::module_::import("os").attr("urandom")(7).attr("hex")();
            const auto value = py::module_::import("builtins").attr("int")(entropy, 16).cast<uint64_t>();
            g.manual_seed(value);
            return value;
          },
          "Restart the stream at a seed from the operating system, and return it.")
      .def("get_state", generator_state, "16 bytes: seed and offset.")
      .def("set_state", set_generator_state, py::arg("state"))
      .def_property_readonly("device",
                             [](const Generator&) { return py::module_::import("deepseek").attr("device")("cpu"); });
  m.attr("default_generator") = py::cast(&default_generator(), py::return_value_policy::reference);
  m.def(
      "manual_seed",
      [m](const py::object& seed) {
        refuse_capture("the generator is seeded");
        default_generator().manual_seed(seed_from(seed));
        return py::object(m.attr("default_generator"));
      },
      py::arg("seed"));
  m.def("initial_seed", [] {
    refuse_capture("the generator's seed is read");
    return default_generator().initial_seed();
  });

  m.def(
      "get_num_threads",
      [] {
        refuse_capture("the number of threads is read");
        return num_threads();
      },
      "Threads a kernel may use.");
  m.def(
      "set_num_threads",
      [](int n) {
        refuse_capture("the number of threads is set");
        DS_CHECK(n > 0, "set_num_threads expects a positive integer, got ", n);
        set_num_threads(n);
      },
      py::arg("int"));
  m.def("_set_grain_limit", set_grain_limit, py::arg("n"),
        "A test seam: work of more than n items is cut over threads, however little it is; 0 ends that.");
  m.def("_set_stream_limit", kernels::set_stream_limit, py::arg("bytes"),
        "A test seam: results of calls that touch more than so many bytes are written past the caches; 0 ends that.");
  m.def(
      "memory_stats",
      [] {
        refuse_capture("the allocator's counters are read");
        const MemoryStats s = memory_stats();
        py::dict d;
        d["allocated_bytes"] = s.allocated_bytes;
        d["peak_bytes"] = s.peak_bytes;
        d["cached_bytes"] = s.cached_bytes;
        d["allocations"] = s.allocations;
        d["system_allocations"] = s.system_allocations;
        return d;
      },
      "Counters of the allocator, in bytes and calls.");
  m.def("reset_peak_memory_stats", [] {
    refuse_capture("the allocator's counters are reset");
    reset_peak_memory_stats();
  });
  m.def("empty_cache", empty_cache, "Give cached memory back to the system.");
  m.def("get_default_dtype", [] { return py::reinterpret_steal<py::object>(wrap_dtype(default_dtype())); });
  m.def(
      "set_default_dtype", [](const py::object& d) { set_default_dtype(unwrap_dtype(d.ptr())); }, py::arg("d"));

  m.def(
      "kernel_counts",
      [] {
        refuse_capture("the counters of kernels are read");
        py::dict d;
        for (const auto& [key, count] : kernels::route_counts()) d[py::str(key)] = count;
        return d;
      },
      "How often each kernel route ran since the last reset, by SIMD target. Calls that race may count once.");
  m.def("reset_kernel_counts", kernels::reset_route_counts);

  m.def(
      "_quant_formats",
      [] {
        py::dict all;
        for (const kernels::QuantFormat& f : kernels::quant_formats()) {
          py::dict row;
          row["doc"] = f.doc;
          row["code"] = py::reinterpret_steal<py::object>(wrap_dtype(f.code));
          row["per_byte"] = f.per_byte;
          row["rows"] = f.rows;
          row["has_zeros"] = f.has_zeros;
          row["whole_numbers"] = f.packed != nullptr;
          py::list blocks;
          for (const int64_t block : f.blocks)
            if (block >= 0) blocks.append(block);
          row["blocks"] = py::tuple(blocks);
          all[f.name] = row;
        }
        return all;
      },
      "The rows of the table of quantized formats (quant_format.h), by name.");
  m.def(
      "_activations",
      [] {
        py::list names;
        for (const kernels::Activation& a : kernels::kActivations) names.append(py::str(std::string(a.name)));
        return py::tuple(names);
      },
      "Names of the activations that fused products take, besides 'none'.");

  m.def(
      "build_info",
      [] {
        py::dict d;
        d["version"] = kVersion;
        d["compiler"] = kCompiler;
        d["build_type"] = kBuildType;
        d["isa"] = isa_name();
        d["simd_targets"] = kernels::simd_targets();
        py::dict libraries;
        libraries["Highway (SIMD)"] = kernels::highway_version();
        libraries["glibc with libmvec (math functions)"] = gnu_get_libc_version();
        libraries["pybind11 (binding)"] = std::to_string(PYBIND11_VERSION_MAJOR) + "." +
                                          std::to_string(PYBIND11_VERSION_MINOR) + "." +
                                          std::to_string(PYBIND11_VERSION_MICRO);
        d["libraries"] = libraries;
        d["num_threads"] = num_threads();
        d["num_threads_reason"] = num_threads_reason();
        py::dict gemm;
        for (const DType t :
             {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64, DType::kInt8, DType::kInt64})
          gemm[name_of(t)] = kernels::matmul_route(t);
        d["matmul"] = gemm;
        return d;
      },
      "Compiler, instruction set, libraries and threads of this build.");
}

}  // namespace deepseek::python

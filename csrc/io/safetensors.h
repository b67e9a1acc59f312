// The safetensors format: 8 bytes of header length, a JSON header, the tensors' bytes.
//
// A reader that accepts and rejects exactly what version 0.8 of the `safetensors` package does, with the same error
// kinds, except that a header with a duplicate key is always rejected (the format forbids it; the package keeps the
// last one).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/view.h"
#include "core/tensor.h"
#include "io/mapped_file.h"

namespace deepseek::io {

// X(code in the file, bits an element). In the format's order: tensors are written from the last of these to the first.
#define DS_FOR_EACH_FILE_DTYPE(X) \
  X(BOOL, 8)                      \
  X(F4, 4)                        \
  X(F6_E2M3, 6)                   \
  X(F6_E3M2, 6)                   \
  X(U8, 8)                        \
  X(I8, 8)                        \
  X(F8_E5M2, 8)                   \
  X(F8_E4M3, 8)                   \
  X(F8_E8M0, 8)                   \
  X(F8_E4M3FNUZ, 8)               \
  X(F8_E5M2FNUZ, 8)               \
  X(I16, 16)                      \
  X(U16, 16) X(F16, 16) X(BF16, 16) X(I32, 32) X(U32, 32) X(F32, 32) X(C64, 64) X(F64, 64) X(I64, 64) X(U64, 64)

enum class FileDType : uint8_t {
#define X(code, bits) k##code,
  DS_FOR_EACH_FILE_DTYPE(X)
#undef X
};

const char* name_of(FileDType dtype);
FileDType file_dtype_of(DType dtype);
std::optional<DType> tensor_dtype_of(FileDType dtype);  // empty for those a tensor here cannot have (U16, F4, C64, ...)

struct TensorEntry {
  std::string name;
  FileDType dtype = FileDType::kU8;
  size_t ndim = 0;
  std::array<uint64_t, kMaxDims> shape{};  // only the first kMaxDims sizes are kept
  uint64_t begin = 0, end = 0;             // bytes, from the start of the data
};

using Metadata = std::map<std::string, std::string>;

class SafetensorsFile : public Counted {
 public:
  // Throw LoadError "file: tensor 'x': what is wrong, expected and actual (Kind)"; open() also IoError.
  static Ref<SafetensorsFile> open(const std::string& path);
  static Ref<SafetensorsFile> from_bytes(std::string_view bytes, std::string name);
  explicit SafetensorsFile(Ref<MappedFile> file);

  const std::string& name() const { return file_->name(); }
  const Ref<MappedFile>& file() const { return file_; }
  const std::optional<Metadata>& metadata() const { return metadata_; }
  std::span<const TensorEntry> entries() const { return entries_; }  // in order of their bytes
  const TensorEntry* find(std::string_view name) const;
  char* data(const TensorEntry& entry) const;  // may be unaligned for the dtype; null when empty

  // The entry as a contiguous View of the mapping. TypeError for a dtype, LoadError for a shape, no tensor here can
  // have.
  View view(const TensorEntry& entry) const;

  // The entry as a tensor on the mapping, which it keeps alive; calls for one entry share one storage. Data that
  // kernels cannot use in place (unaligned for the dtype, bool bytes other than 0 and 1) are copied. Errors as view().
  Tensor tensor(const TensorEntry& entry) const;

 private:
  void parse_header(std::string_view header);

  Ref<MappedFile> file_;
  size_t data_start_ = 0;
  std::optional<Metadata> metadata_;
  std::vector<TensorEntry> entries_;
  std::vector<uint32_t> by_name_;  // indices into entries_
  mutable std::mutex mutex_;
  mutable std::vector<Ref<Storage>> storages_;  // per entry, made by tensor()
};

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

// Lays tensors out as the package does (larger alignment first, then by name; header padded to 8 bytes with spaces), so
// that files are identical byte for byte; metadata keys are sorted. Tensors that are not contiguous are copied first.
// Throws ValueError for names no file can hold.
class SafetensorsWriter {
 public:
  SafetensorsWriter(NamedTensors tensors, const std::optional<Metadata>& metadata);
  size_t size() const { return size_; }
  void emit(const std::function<void(const void*, size_t)>& sink) const;
  void save(const std::string& path) const;  // atomically; throws IoError

 private:
  NamedTensors tensors_;
  std::string header_;  // with the length in front
  size_t size_ = 0;
};

}  // namespace deepseek::io

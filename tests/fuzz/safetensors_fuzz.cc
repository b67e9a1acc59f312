// Any bytes as a safetensors file, through the entry point of deepseek.io: a LoadError or tensors that can be read, and
// written and read again.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "io/safetensors.h"

namespace {

using deepseek::Error;
using deepseek::LoadError;
using deepseek::Ref;
using deepseek::Tensor;
using deepseek::io::Metadata;
using deepseek::io::NamedTensors;
using deepseek::io::SafetensorsFile;
using deepseek::io::SafetensorsWriter;

constexpr size_t kLengthBytes = 8;

void require(bool condition) {
  if (!condition) std::abort();
}

std::string bytes_of(const Tensor& tensor) {
  return {static_cast<const char*>(tensor.data_ptr()), static_cast<size_t>(tensor.nbytes())};
}

// Bytes of the header that the length in front announces, where it is not beyond the file.
size_t header_bytes(const uint8_t* data, size_t size) {
  uint64_t length = 0;
  if (size < kLengthBytes) return 0;
  std::memcpy(&length, data, kLengthBytes);
  return length <= size - kLengthBytes ? length : 0;
}

// What was read, written again and read again, is the same.
void round_trip(const NamedTensors& tensors, const std::optional<Metadata>& metadata) {
  std::string written;
  SafetensorsWriter(tensors, metadata).emit([&](const void* data, size_t bytes) {
    written.append(static_cast<const char*>(data), bytes);
  });
  const Ref<SafetensorsFile> again = SafetensorsFile::from_bytes(written, "again");
  require(again->metadata() == metadata && again->entries().size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const auto* entry = again->find(name);
    require(entry != nullptr);
    const Tensor other = again->tensor(*entry);
    require(other.dtype() == tensor.dtype() && other.sizes() == tensor.sizes() && bytes_of(other) == bytes_of(tensor));
  }
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// Blind mutations break the length in front nearly always. So most of them change the header alone and correct it.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  const size_t header = header_bytes(data, size);
  if (seed % 8 == 0 || header == 0) return LLVMFuzzerMutate(data, size, max_size);
  const std::string rest(reinterpret_cast<const char*>(data) + kLengthBytes + header, size - kLengthBytes - header);
  const uint64_t changed = LLVMFuzzerMutate(data + kLengthBytes, header, max_size - kLengthBytes - rest.size());
  std::memcpy(data, &changed, kLengthBytes);
  std::copy(rest.begin(), rest.end(), data + kLengthBytes + changed);
  return kLengthBytes + changed + rest.size();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Ref<SafetensorsFile> file;
  try {
    file = SafetensorsFile::from_bytes({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const LoadError&) {
    return 0;
  }
  NamedTensors tensors;
  uint64_t end = 0;
  for (const auto& entry : file->entries()) {
    require(file->find(entry.name) == &entry && entry.begin == end && entry.end >= entry.begin);
    end = entry.end;
    try {
      tensors.emplace_back(entry.name, file->tensor(entry));
      require(static_cast<uint64_t>(tensors.back().second.nbytes()) == entry.end - entry.begin);
      bytes_of(tensors.back().second);  // AddressSanitizer sees a tensor that leaves the file
    } catch (const Error&) {            // a dtype or a number of dimensions that no tensor here has
    }
  }
  round_trip(tensors, file->metadata());
  return 0;
}

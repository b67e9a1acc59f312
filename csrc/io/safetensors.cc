#include "io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "io/atomic_file.h"
#include "io/json.h"
#include "kernels/loops/copy.h"

namespace deepseek::io {

static_assert(std::endian::native == std::endian::little, "safetensors data are little-endian");

namespace {

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeader = 100'000'000;
constexpr const char* kMetadataKey = "__metadata__";

struct FileDTypeInfo {
  const char* name;
  int bits;
};
constexpr FileDTypeInfo kFileDTypes[] = {
#define X(code, bits) {#code, bits},
    DS_FOR_EACH_FILE_DTYPE(X)
#undef X
};
const FileDTypeInfo& info_of(FileDType dtype) { return kFileDTypes[static_cast<int>(dtype)]; }

// A tensor name fit for a one-line message.
std::string quoted(std::string_view name) {
  constexpr size_t kLongest = 160;
  std::string out = "'";
  for (size_t i = 0; i < name.size(); ++i) {
    const auto c = static_cast<unsigned char>(name[i]);
    const bool continuation = (c & 0xC0) == 0x80;
    if (i >= kLongest && !continuation) return out + "...'";
    if (c < 0x20 || c == 0x7F) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", c);
      out += escaped;
    } else {
      out.push_back(name[i]);
    }
  }
  return out + "'";
}

std::string shape_text(const TensorEntry& entry) {
  std::string text = "[";
  for (size_t i = 0; i < std::min<size_t>(entry.ndim, kMaxDims); ++i) text += text_of({i ? ", " : "", entry.shape[i]});
  if (entry.ndim > kMaxDims) text += text_of({", ... ", entry.ndim, " dimensions"});
  return text + text_of({"] x ", name_of(entry.dtype)});
}

// While a header is read: an entry, and what is checked of it once all offsets are known. The element count is taken
// here because sizes beyond kMaxDims are not kept.
struct ParsedTensor {
  TensorEntry entry;
  std::optional<uint64_t> elements = 1;  // empty: overflows
};

uint64_t read_size(json::Reader& in) {
  if (in.peek() != json::Kind::kNumber) in.error(std::string("expected a size, got ") + json::name_of(in.peek()));
  const std::optional<uint64_t> value = in.number();
  if (!value) in.error("expected an integer in [0, 2^64)");
  return *value;
}

FileDType find_file_dtype(json::Reader& in, const std::string& code) {
  for (size_t i = 0; i < std::size(kFileDTypes); ++i)
    if (code == kFileDTypes[i].name) return static_cast<FileDType>(i);
  in.error("unknown dtype " + quoted(code));
}

FileDType read_dtype(json::Reader& in) {
  if (in.peek() != json::Kind::kObject) return find_file_dtype(in, in.string());
  // The package also takes {"F32": null}, the long spelling of its enumeration.
  std::optional<FileDType> dtype;
  in.object([&](const std::string& code) {
    if (dtype) in.error("expected a dtype");
    dtype = find_file_dtype(in, code);
    in.null();
  });
  if (!dtype) in.error("expected a dtype");
  return *dtype;
}

void read_shape(json::Reader& in, ParsedTensor& tensor) {
  in.array([&] {
    const uint64_t size = read_size(in);
    if (tensor.entry.ndim < kMaxDims) tensor.entry.shape[tensor.entry.ndim] = size;
    ++tensor.entry.ndim;
    uint64_t product = 0;
    if (tensor.elements && __builtin_mul_overflow(*tensor.elements, size, &product))
      tensor.elements.reset();
    else if (tensor.elements)
      tensor.elements = product;
  });
}

void read_offsets(json::Reader& in, TensorEntry& entry) {
  int count = 0;
  in.array([&] {
    if (count == 2) in.error("expected two data_offsets");
    (count == 0 ? entry.begin : entry.end) = read_size(in);
    ++count;
  });
  if (count != 2) in.error("expected two data_offsets");
}

// {"dtype":..., "shape":[...], "data_offsets":[begin, end]}; other members are ignored. The package also takes the
// three values as an array in this order.
ParsedTensor read_tensor(json::Reader& in) {
  constexpr const char* kFields[] = {"dtype", "shape", "data_offsets"};
  ParsedTensor tensor;
  bool seen[3] = {};
  auto read_field = [&](int field) {
    seen[field] = true;
    if (field == 0) tensor.entry.dtype = read_dtype(in);
    if (field == 1) read_shape(in, tensor);
    if (field == 2) read_offsets(in, tensor.entry);
  };
  if (in.peek() == json::Kind::kArray) {
    int field = 0;
    in.array([&] {
      if (field == 3) in.error("expected dtype, shape and data_offsets");
      read_field(field++);
    });
  } else {
    in.object([&](const std::string& key) {
      const auto* field = std::find(std::begin(kFields), std::end(kFields), key);
      if (field == std::end(kFields))
        in.skip();
      else
        read_field(static_cast<int>(field - kFields));
    });
  }
  for (int field = 0; field < 3; ++field)
    if (!seen[field]) in.error(std::string("missing ") + kFields[field]);
  return tensor;
}

std::optional<Metadata> read_metadata(json::Reader& in) {
  if (in.peek() == json::Kind::kNull) {
    in.null();
    return std::nullopt;
  }
  Metadata metadata;
  in.object([&](std::string key) { metadata.emplace(std::move(key), in.string()); });
  return metadata;
}

// Does the entry's byte range follow `expected_begin` and hold exactly its elements? Checks in the package's order.
void check_entry(const std::string& file, const ParsedTensor& tensor, uint64_t expected_begin) {
  const TensorEntry& e = tensor.entry;
  auto reject = [&](const char* kind, const auto&... what) {
    fail<LoadError>(file, ": tensor ", quoted(e.name), ": ", what..., " (", kind, ")");
  };
  if (e.begin != expected_begin || e.end < e.begin)
    reject("InvalidOffset", "data_offsets [", e.begin, ", ", e.end,
           "] leave a hole, overlap or are reversed, expected to begin at ", expected_begin);
  const auto bits_each = static_cast<uint64_t>(info_of(e.dtype).bits);
  uint64_t bits = 0;
  if (!tensor.elements || __builtin_mul_overflow(*tensor.elements, bits_each, &bits))
    reject("ValidationOverflow", "the size of ", shape_text(e), " overflows 64 bits");
  if (bits % 8 != 0) reject("MisalignedSlice", shape_text(e), " ends inside a byte (", bits, " bits)");
  if (e.end - e.begin != bits / 8)
    reject("TensorInvalidInfo", "data_offsets [", e.begin, ", ", e.end, "] do not match shape ", shape_text(e), " (",
           bits / 8, " bytes)");
}

}  // namespace

const char* name_of(FileDType dtype) { return info_of(dtype).name; }

FileDType file_dtype_of(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return FileDType::kBOOL;
    case DType::kUInt8:
      return FileDType::kU8;
    case DType::kInt8:
      return FileDType::kI8;
    case DType::kInt16:
      return FileDType::kI16;
    case DType::kInt32:
      return FileDType::kI32;
    case DType::kInt64:
      return FileDType::kI64;
    case DType::kFloat8E4M3:
      return FileDType::kF8_E4M3;
    case DType::kFloat8E5M2:
      return FileDType::kF8_E5M2;
    case DType::kFloat16:
      return FileDType::kF16;
    case DType::kBFloat16:
      return FileDType::kBF16;
    case DType::kFloat32:
      return FileDType::kF32;
    case DType::kFloat64:
      return FileDType::kF64;
  }
  __builtin_unreachable();
}

std::optional<DType> tensor_dtype_of(FileDType dtype) {
  for (int i = 0; i < kNumDTypes; ++i)
    if (file_dtype_of(static_cast<DType>(i)) == dtype) return static_cast<DType>(i);
  return std::nullopt;
}

Ref<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  return make_ref<SafetensorsFile>(MappedFile::open(path));
}

Ref<SafetensorsFile> SafetensorsFile::from_bytes(std::string_view bytes, std::string name) {
  return make_ref<SafetensorsFile>(MappedFile::copy_of(bytes, std::move(name)));
}

SafetensorsFile::SafetensorsFile(Ref<MappedFile> file) : file_(std::move(file)) {
  const size_t size = file_->size();
  if (size < kLengthBytes)
    fail<LoadError>(name(), ": expected at least ", kLengthBytes, " bytes, the file has ", size, " (HeaderTooSmall)");
  uint64_t header_bytes;
  std::memcpy(&header_bytes, file_->data(), kLengthBytes);
  if (header_bytes > kMaxHeader)
    fail<LoadError>(name(), ": its first ", kLengthBytes, " bytes are no length of a header, they stand for more than ",
                    kMaxHeader, " (HeaderTooLarge)");
  if (header_bytes > size - kLengthBytes)
    fail<LoadError>(name(), ": header of ", header_bytes, " bytes, but only ", size - kLengthBytes,
                    " bytes follow its length (InvalidHeaderLength)");
  const std::string_view header = file_->bytes().substr(kLengthBytes, header_bytes);
  if (const size_t bad = json::find_invalid_utf8(header); bad != std::string_view::npos)
    fail<LoadError>(name(), ": header is not UTF-8 at byte ", bad, " (InvalidHeader)");
  data_start_ = kLengthBytes + header_bytes;
  parse_header(header);
}

void SafetensorsFile::parse_header(std::string_view header) {
  std::vector<ParsedTensor> parsed;
  std::string where;
  try {
    json::Reader in(header);
    in.object([&](std::string key) {
      where = "tensor " + quoted(key) + ": ";
      if (key == kMetadataKey) {
        where = std::string(kMetadataKey) + ": ";
        metadata_ = read_metadata(in);
      } else {
        parsed.push_back(read_tensor(in));
        parsed.back().entry.name = std::move(key);
      }
      where.clear();
    });
    in.finish();
  } catch (const json::ParseError& e) {
    fail<LoadError>(name(), ": ", where, "header: ", e.what(), " (InvalidHeaderDeserialization)");
  }

  std::stable_sort(parsed.begin(), parsed.end(), [](const ParsedTensor& a, const ParsedTensor& b) {
    return std::pair(a.entry.begin, a.entry.end) < std::pair(b.entry.begin, b.entry.end);
  });
  uint64_t end = 0;
  for (const ParsedTensor& tensor : parsed) {
    check_entry(name(), tensor, end);
    end = tensor.entry.end;
  }
  if (const uint64_t data_bytes = file_->size() - data_start_; end != data_bytes)
    fail<LoadError>(name(), ": the header describes ", end, " bytes of data, the file has ", data_bytes,
                    " (MetadataIncompleteBuffer)");

  entries_.reserve(parsed.size());
  for (ParsedTensor& tensor : parsed) entries_.push_back(std::move(tensor.entry));
  by_name_.resize(entries_.size());
  for (size_t i = 0; i < by_name_.size(); ++i) by_name_[i] = static_cast<uint32_t>(i);
  std::sort(by_name_.begin(), by_name_.end(),
            [&](uint32_t a, uint32_t b) { return entries_[a].name < entries_[b].name; });
}

const TensorEntry* SafetensorsFile::find(std::string_view wanted) const {
  const auto it = std::lower_bound(by_name_.begin(), by_name_.end(), wanted,
                                   [&](uint32_t i, std::string_view n) { return entries_[i].name < n; });
  return it != by_name_.end() && entries_[*it].name == wanted ? &entries_[*it] : nullptr;
}

char* SafetensorsFile::data(const TensorEntry& entry) const {
  return entry.begin == entry.end ? nullptr : file_->data() + data_start_ + entry.begin;
}

View SafetensorsFile::view(const TensorEntry& entry) const {
  const std::optional<DType> dtype = tensor_dtype_of(entry.dtype);
  DS_CHECK_AS(TypeError, dtype.has_value(), name(), ": tensor ", quoted(entry.name), ": dtype ", name_of(entry.dtype),
              " has no counterpart here (supported: BOOL U8 I8 I16 I32 I64 F8_E4M3 F8_E5M2 F16 BF16 F32 F64)");
  DS_CHECK_AS(LoadError, entry.ndim <= kMaxDims, name(), ": tensor ", quoted(entry.name), ": ", entry.ndim,
              " dimensions, at most ", kMaxDims, " are supported");
  View view{data(entry), *dtype, {}, {}};
  int64_t extent = 1;  // what the strides grow to; an empty tensor may have absurd sizes beside its 0
  for (size_t i = 0; i < entry.ndim; ++i) {
    if (__builtin_mul_overflow(extent, std::max<uint64_t>(entry.shape[i], 1), &extent))
      fail<LoadError>(name(), ": tensor ", quoted(entry.name), ": the strides of ", shape_text(entry),
                      " overflow 63 bits");
    view.sizes.push_back(static_cast<int64_t>(entry.shape[i]));
  }
  view.strides = contiguous_strides(view.sizes);
  return view;
}

namespace {

// May a kernel read the bytes in place? A bool other than 0 and 1, or an unaligned element, is undefined behaviour in
// C++.
bool usable_in_place(const View& view, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(view.data) % static_cast<size_t>(size_of(view.dtype)) != 0) return false;
  if (view.dtype != DType::kBool) return true;
  const auto* p = view.as<uint8_t>();
  return std::all_of(p, p + bytes, [](uint8_t b) { return b <= 1; });
}

Tensor copied(const View& view, size_t bytes) {
  Tensor out = Tensor::empty(view.sizes, view.dtype);
  if (bytes > 0) std::memcpy(out.data_ptr(), view.data, bytes);
  if (view.dtype == DType::kBool)
    for (auto* p = out.data<uint8_t>(); bytes > 0; --bytes, ++p) *p = *p != 0;
  return out;
}

}  // namespace

Tensor SafetensorsFile::tensor(const TensorEntry& entry) const {
  const View in_file = view(entry);
  const size_t bytes = entry.end - entry.begin;
  if (bytes == 0 || !usable_in_place(in_file, bytes)) return copied(in_file, bytes);
  const std::lock_guard lock(mutex_);
  storages_.resize(entries_.size());
  Ref<Storage>& storage = storages_[static_cast<size_t>(&entry - entries_.data())];
  if (!storage) {
    Ref<MappedFile> mapping = file_;
    auto release = [](void* context) { Ref<MappedFile>::adopt(static_cast<MappedFile*>(context)); };
    storage = Storage::external(in_file.data, bytes, release, mapping.get());
    mapping.release();  // the storage holds this count now
  }
  return Tensor::from_storage(storage, in_file.sizes, in_file.strides, 0, in_file.dtype);
}

namespace {

void append_tensor(std::string& header, const std::string& name, const Tensor& tensor, uint64_t begin) {
  const Dims& shape = tensor.sizes();
  json::append_string(header, name);
  header += text_of({":{\"dtype\":\"", name_of(file_dtype_of(tensor.dtype())), "\",\"shape\":["});
  for (int i = 0; i < shape.size(); ++i) header += text_of({i ? "," : "", shape[i]});
  const uint64_t end = begin + static_cast<uint64_t>(tensor.nbytes());
  header += text_of({"],\"data_offsets\":[", begin, ',', end, "]}"});
}

void append_metadata(std::string& header, const Metadata& metadata) {
  json::append_string(header, kMetadataKey);
  header += ":{";
  bool first = true;
  for (const auto& [key, value] : metadata) {
    if (!first) header += ',';
    first = false;
    json::append_string(header, key);
    header += ':';
    json::append_string(header, value);
  }
  header += '}';
}

void check_text(const char* what, const std::string& text) {
  DS_CHECK_AS(ValueError, json::find_invalid_utf8(text) == std::string::npos, what, " is not valid UTF-8");
}

Tensor contiguous_copy(const Tensor& tensor) {
  Tensor out = Tensor::empty(tensor.sizes(), tensor.dtype());
  kernels::copy(out.view(), tensor.view());
  return out;
}

std::string padded_header(const NamedTensors& tensors, const std::optional<Metadata>& metadata) {
  std::string header = "{";
  if (metadata) append_metadata(header, *metadata);
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    if (header.size() > 1) header += ',';
    append_tensor(header, name, tensor, offset);
    offset += static_cast<uint64_t>(tensor.nbytes());
  }
  header += '}';
  header.resize((header.size() + kLengthBytes - 1) / kLengthBytes * kLengthBytes, ' ');
  DS_CHECK_AS(ValueError, header.size() <= kMaxHeader, "header of ", header.size(), " bytes, at most ", kMaxHeader,
              " are allowed (HeaderTooLarge)");
  return header;
}

void check_names(const NamedTensors& tensors) {
  std::vector<std::string_view> names;
  for (const auto& [name, tensor] : tensors) {
    check_text("a tensor name", name);
    DS_CHECK_AS(ValueError, name != kMetadataKey, "a tensor cannot be named ", kMetadataKey);
    DS_CHECK_AS(ValueError, tensor.has_data(), "tensor ", quoted(name), " has no data");
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    fail<ValueError>("two tensors are named ", quoted(*twice));
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(NamedTensors tensors, const std::optional<Metadata>& metadata)
    : tensors_(std::move(tensors)) {
  check_names(tensors_);
  for (const auto& [key, value] : metadata.value_or(Metadata{})) {
    check_text("a metadata key", key);
    check_text("a metadata value", value);
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) {
    const FileDType left = file_dtype_of(a.second.dtype()), right = file_dtype_of(b.second.dtype());
    return left != right ? left > right : a.first < b.first;
  });
  for (auto& [name, tensor] : tensors_)
    if (!tensor.is_contiguous()) tensor = contiguous_copy(tensor);
  const std::string header = padded_header(tensors_, metadata);
  const uint64_t length = header.size();
  header_.assign(reinterpret_cast<const char*>(&length), kLengthBytes);
  header_ += header;
  size_ = header_.size();
  for (const auto& [name, tensor] : tensors_) size_ += static_cast<size_t>(tensor.nbytes());
}

void SafetensorsWriter::emit(const std::function<void(const void*, size_t)>& sink) const {
  sink(header_.data(), header_.size());
  for (const auto& [name, tensor] : tensors_)
    if (tensor.numel() > 0) sink(tensor.data_ptr(), static_cast<size_t>(tensor.nbytes()));
}

void SafetensorsWriter::save(const std::string& path) const {
  AtomicFile file(path);
  emit([&](const void* data, size_t bytes) { file.write(data, bytes); });
  file.commit();
}

}  // namespace deepseek::io

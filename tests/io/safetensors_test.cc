#include "io/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <vector>

namespace deepseek::io {
namespace {

std::string file_of(const std::string& header, size_t data_bytes = 0) {
  const uint64_t length = header.size();
  std::string out(reinterpret_cast<const char*>(&length), 8);
  out += header;
  for (size_t i = 0; i < data_bytes; ++i) out.push_back(static_cast<char>(i));
  return out;
}

Ref<SafetensorsFile> parse(const std::string& bytes) { return SafetensorsFile::from_bytes(bytes, "m.safetensors"); }

std::string error_of(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const LoadError& e) {
    return e.what();
  }
  return "accepted";
}

std::string kind_of(const std::string& bytes) {
  const std::string message = error_of(bytes);
  const size_t open = message.rfind('(');
  return open == std::string::npos ? message : message.substr(open + 1, message.size() - open - 2);
}

std::string tensor(const std::string& fields) { return "{\"w\":{" + fields + "}}"; }

TEST(Safetensors, ReadsEntriesAndMetadata) {
  const auto file =
      parse(file_of(R"({"b":{"dtype":"F32","shape":[2],"data_offsets":[6,14]},"__metadata__":{"format":"pt"},)"
                    R"("a":{"data_offsets":[0,6],"shape":[1,3],"dtype":"BF16","more":[1,{}]}}   )",
                    14));
  ASSERT_EQ(file->entries().size(), 2u);
  EXPECT_EQ(file->entries()[0].name, "a");  // in order of the bytes
  EXPECT_EQ(file->metadata()->at("format"), "pt");
  const TensorEntry* b = file->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, FileDType::kF32);
  EXPECT_EQ(file->data(*b)[0], 6);
  const View a = file->view(*file->find("a"));
  EXPECT_EQ(a.dtype, DType::kBFloat16);
  EXPECT_EQ(a.sizes, (Dims{1, 3}));
  EXPECT_EQ(a.strides, (Dims{3, 1}));
  EXPECT_EQ(file->find("c"), nullptr);
  EXPECT_EQ(file->find("__metadata__"), nullptr);
}

TEST(Safetensors, AcceptsWhatThePackageAccepts) {
  const struct {
    std::string header;
    size_t data;
  } cases[] = {
      {"{}", 0},
      {" \n{}", 0},
      {R"({"__metadata__":null})", 0},
      {tensor(R"("dtype":"F64","shape":[],"data_offsets":[0,8])"), 8},
      {tensor(R"("dtype":"F64","shape":[0,5],"data_offsets":[0,0])"), 0},
      {tensor(R"("dtype":"F4","shape":[2,3],"data_offsets":[0,3])"), 3},
      {tensor(R"("dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3])"), 3},
      {tensor(R"("dtype":{"U8":null},"shape":[1],"data_offsets":[0,1])"), 1},
      {R"({"w":["C64",[1],[0,8]]})", 8},
      {tensor(R"("dtype":"U8","shape":[18446744073709551615,0],"data_offsets":[0,0])"), 0},
      {tensor(R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1])"), 1},
  };
  for (const auto& c : cases) EXPECT_EQ(error_of(file_of(c.header, c.data)), "accepted") << c.header;
}

TEST(Safetensors, ErrorKinds) {
  const uint64_t large = 100'000'001;
  const std::string large_length(reinterpret_cast<const char*>(&large), 8);
  const std::string u8 = R"("dtype":"U8","shape":[4],"data_offsets":)";
  const struct {
    std::string bytes;
    const char* kind;
  } cases[] = {
      {"", "HeaderTooSmall"},
      {"1234567", "HeaderTooSmall"},
      {large_length + "{}", "HeaderTooLarge"},
      {std::string(8, '\xff'), "HeaderTooLarge"},
      {file_of("{}").substr(0, 9), "InvalidHeaderLength"},
      {file_of("{\"\xff\":1}"), "InvalidHeader"},
      {file_of(""), "InvalidHeaderDeserialization"},
      {file_of("[]"), "InvalidHeaderDeserialization"},
      {file_of("{} x"), "InvalidHeaderDeserialization"},
      {file_of(std::string("{}\0", 3)), "InvalidHeaderDeserialization"},
      {file_of(R"({"__metadata__":{"a":1}})"), "InvalidHeaderDeserialization"},
      {file_of(R"({"__metadata__":[]})"), "InvalidHeaderDeserialization"},
      {file_of(R"({"w":1})"), "InvalidHeaderDeserialization"},
      {file_of(tensor(u8 + "[0,4.0]"), 4), "InvalidHeaderDeserialization"},
      {file_of(tensor(u8 + "[0]"), 4), "InvalidHeaderDeserialization"},
      {file_of(tensor(u8 + "[0,4,4]"), 4), "InvalidHeaderDeserialization"},
      {file_of(tensor(u8 + "[-0,4]"), 4), "InvalidHeaderDeserialization"},
      {file_of(tensor(u8 + "[0,4],\"dtype\":\"U8\""), 4), "InvalidHeaderDeserialization"},
      {file_of(tensor(u8 + "[0,4],\"x\":1e999"), 4), "InvalidHeaderDeserialization"},
      {file_of(tensor(R"("dtype":"u8","shape":[4],"data_offsets":[0,4])"), 4), "InvalidHeaderDeserialization"},
      {file_of(tensor(R"("dtype":"U8","data_offsets":[0,4])"), 4), "InvalidHeaderDeserialization"},
      {file_of(R"({"w":["U8",[4]]})", 4), "InvalidHeaderDeserialization"},
      {file_of("{" + tensor(u8 + "[0,4]").substr(1, 51) + "," + tensor(u8 + "[0,4]").substr(1), 4),
       "InvalidHeaderDeserialization"},
      {file_of(tensor(u8 + "[0,4]"), 5), "MetadataIncompleteBuffer"},
      {file_of(tensor(u8 + "[0,4]"), 3), "MetadataIncompleteBuffer"},
      {file_of("{}", 1), "MetadataIncompleteBuffer"},
      {file_of(tensor(u8 + "[1,5]"), 5), "InvalidOffset"},
      {file_of(tensor(u8 + "[4,0]"), 4), "InvalidOffset"},
      {file_of(R"({"a":["U8",[4],[0,4]],"b":["U8",[4],[2,6]]})", 6), "InvalidOffset"},
      {file_of(tensor(u8 + "[0,5]"), 5), "TensorInvalidInfo"},
      {file_of(tensor(R"("dtype":"F32","shape":[4,8],"data_offsets":[0,64])"), 64), "TensorInvalidInfo"},
      {file_of(tensor(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])")), "ValidationOverflow"},
      {file_of(tensor(R"("dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0])")), "ValidationOverflow"},
      {file_of(tensor(R"("dtype":"U8","shape":[2305843009213693952],"data_offsets":[0,0])")), "ValidationOverflow"},
      {file_of(tensor(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])"), 2), "MisalignedSlice"},
      {file_of(tensor(R"("dtype":"F6_E3M2","shape":[2],"data_offsets":[0,2])"), 2), "MisalignedSlice"},
  };
  for (const auto& c : cases) EXPECT_EQ(kind_of(c.bytes), c.kind) << testing::PrintToString(c.bytes);
}

TEST(Safetensors, MessagesNameFileTensorAndBothValues) {
  EXPECT_EQ(error_of(file_of(R"({"layers.0.w":{"dtype":"F32","shape":[4,8],"data_offsets":[0,64]}})", 64)),
            "m.safetensors: tensor 'layers.0.w': data_offsets [0, 64] do not match shape [4, 8] x F32 (128 bytes) "
            "(TensorInvalidInfo)");
  EXPECT_EQ(error_of(file_of(R"({"w":{"dtype":"F3"}})")),
            "m.safetensors: tensor 'w': header: unknown dtype 'F3' at byte 18 (InvalidHeaderDeserialization)");
  const std::string message = error_of(file_of("{\"\\n" + std::string(300, 'x') + R"(":["U8",[1],[0,0]]})"));
  EXPECT_NE(message.find("tensor '\\x0ax"), std::string::npos) << message;
  EXPECT_LT(message.size(), 300u);
}

TEST(Safetensors, UnsupportedEntriesParseAndNameTheirDtype) {
  const auto file = parse(file_of(R"({"w":["U16",[2],[0,4]],"d":["U8",[1,1,1,1,1,1,1,1,1],[4,5]],)"
                                  R"("s":["U8",[9223372036854775807,0,2],[0,0]]})",
                                  5));
  try {
    file->view(*file->find("w"));
    FAIL();
  } catch (const TypeError& e) {
    EXPECT_NE(std::string(e.what()).find("m.safetensors: tensor 'w': dtype U16"), std::string::npos) << e.what();
  }
  EXPECT_THROW(file->view(*file->find("d")), LoadError);
  EXPECT_THROW(file->view(*file->find("s")), LoadError);
}

TEST(Safetensors, DTypesMapBothWays) {
  int supported = 0;
  for (int i = 0; i <= static_cast<int>(FileDType::kU64); ++i) {
    const auto code = static_cast<FileDType>(i);
    if (const auto dtype = tensor_dtype_of(code)) {
      EXPECT_EQ(file_dtype_of(*dtype), code);
      ++supported;
    }
  }
  EXPECT_EQ(supported, kNumDTypes);
}

template <class T>
Tensor tensor_of(const Dims& sizes, const std::vector<T>& values) {
  Tensor t = Tensor::empty(sizes, dtype_of<T>);
  std::copy(values.begin(), values.end(), t.data<T>());
  return t;
}

std::string raw(const Tensor& t) { return {t.data<char>(), static_cast<size_t>(t.nbytes())}; }

TEST(Safetensors, TensorsShareTheMappingAndKeepItAlive) {
  Tensor w, again;
  {
    const auto file = parse(file_of(R"({"w":["U8",[2,3],[0,6]],"e":["F32",[0,7],[6,6]]}        )", 6));
    w = file->tensor(*file->find("w"));
    again = file->tensor(*file->find("w"));
    EXPECT_EQ(w.data_ptr(), file->data(*file->find("w")));
    EXPECT_EQ(file->tensor(*file->find("e")).sizes(), (Dims{0, 7}));
  }
  EXPECT_EQ(raw(w), std::string("\0\1\2\3\4\5", 6));
  EXPECT_EQ(w.storage(), again.storage());  // one version counter for one memory
  EXPECT_EQ(w.storage()->bytes(), 6u);
}

TEST(Safetensors, UnalignedAndImproperBoolDataAreCopied) {
  const auto file = parse(file_of(R"({"a":["U8",[1],[0,1]],"f":["F32",[2],[1,9]],"b":["BOOL",[3],[9,12]]}      )", 12));
  ASSERT_EQ((file->data(*file->find("a")) - file->file()->data()) % 2, 0);
  const Tensor f = file->tensor(*file->find("f"));
  EXPECT_NE(f.data_ptr(), file->data(*file->find("f")));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(f.data_ptr()) % 4, 0u);
  EXPECT_EQ(raw(f), "\1\2\3\4\5\6\7\10");
  EXPECT_EQ(raw(file->tensor(*file->find("b"))), "\1\1\1");  // the file has 9, 10, 11
}

std::string bytes_of(const SafetensorsWriter& writer) {
  std::string out;
  writer.emit([&](const void* data, size_t n) { out.append(static_cast<const char*>(data), n); });
  EXPECT_EQ(out.size(), writer.size());
  return out;
}

TEST(SafetensorsWriter, LaysOutByAlignmentThenNameAndPads) {
  const Tensor small = tensor_of<uint8_t>({3}, {1, 2, 3});
  const Tensor large = tensor_of<double>({}, {2.5});
  const Tensor same = tensor_of<int64_t>({2}, {7, 8});
  const SafetensorsWriter writer(
      {{"z", small}, {"b", same}, {"a", large}, {"c\n", Tensor::empty({0, 4}, DType::kFloat32)}}, Metadata{{"k", "v"}});
  const std::string bytes = bytes_of(writer);
  const std::string header =
      R"({"__metadata__":{"k":"v"},"b":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},)"
      R"("a":{"dtype":"F64","shape":[],"data_offsets":[16,24]},"c\n":{"dtype":"F32","shape":[0,4],"data_offsets":[24,24]},)"
      R"("z":{"dtype":"U8","shape":[3],"data_offsets":[24,27]}})";
  EXPECT_EQ(bytes.substr(8, header.size()), header);
  const auto file = parse(bytes);
  EXPECT_EQ((file->data(file->entries()[0]) - file->file()->data()) % 8, 0);
  EXPECT_EQ(raw(file->tensor(*file->find("b"))), raw(same));
  EXPECT_EQ(raw(file->tensor(*file->find("a"))), raw(large));
  EXPECT_EQ(raw(file->tensor(*file->find("z"))), raw(small));
}

TEST(SafetensorsWriter, EmptyFile) { EXPECT_EQ(bytes_of(SafetensorsWriter({}, std::nullopt)), file_of("{}      ")); }

TEST(SafetensorsWriter, StoresStridedTensorsInRowMajorOrder) {
  const Tensor t = tensor_of<int32_t>({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor transposed = t.alias({{3, 2}, {1, 3}, 0});
  const Tensor expanded = t.alias({{2, 2}, {0, 1}, 4});
  const auto file = parse(bytes_of(SafetensorsWriter({{"t", transposed}, {"e", expanded}}, std::nullopt)));
  EXPECT_EQ(raw(file->tensor(*file->find("t"))), raw(tensor_of<int32_t>({6}, {1, 4, 2, 5, 3, 6})));
  EXPECT_EQ(raw(file->tensor(*file->find("e"))), raw(tensor_of<int32_t>({4}, {5, 6, 5, 6})));
}

TEST(SafetensorsWriter, RefusesNamesNoFileCanHold) {
  const Tensor t = tensor_of<uint8_t>({1}, {0});
  EXPECT_THROW(SafetensorsWriter(NamedTensors{{"__metadata__", t}}, std::nullopt), ValueError);
  EXPECT_THROW(SafetensorsWriter(NamedTensors{{"\xff", t}}, std::nullopt), ValueError);
  EXPECT_THROW(SafetensorsWriter(NamedTensors{{"a", t}, {"b", t}, {"a", t}}, std::nullopt), ValueError);
  EXPECT_THROW(SafetensorsWriter(NamedTensors{{"a", Tensor()}}, std::nullopt), ValueError);
  EXPECT_THROW(SafetensorsWriter({}, Metadata{{"k", "\xed\xa0\x80"}}), ValueError);
}

TEST(SafetensorsWriter, SavesOverAMappedFile) {
  const std::string path = (std::filesystem::temp_directory_path() / ("st_" + std::to_string(::getpid()))).string();
  const Tensor first = tensor_of<float>({4096}, std::vector<float>(4096, 1.0f));
  SafetensorsWriter({{"w", first}}, std::nullopt).save(path);
  Tensor mapped;
  {
    const auto old = SafetensorsFile::open(path);
    mapped = old->tensor(old->entries()[0]);
  }
  mapped.data<float>()[0] = 3.0f;  // private: must not reach the file
  const auto unchanged = SafetensorsFile::open(path);
  EXPECT_EQ(raw(unchanged->tensor(unchanged->entries()[0])), raw(first));
  SafetensorsWriter({{"w", mapped.alias({{16}, {1}, 0})}}, std::nullopt).save(path);  // from the mapping of the target
  EXPECT_EQ(mapped.data<float>()[4095], 1.0f);
  const auto now = SafetensorsFile::open(path);
  const Tensor w = now->tensor(now->entries()[0]);
  EXPECT_EQ(w.sizes(), (Dims{16}));
  EXPECT_EQ(w.data<float>()[0], 3.0f);
  EXPECT_EQ(w.data<float>()[1], 1.0f);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace deepseek::io

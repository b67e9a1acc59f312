// The JSON reader on any text: a ParseError at a byte of the text, or a value; strings survive being written and read.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "io/json.h"

namespace json = deepseek::io::json;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

// One value, every part of it kept, unlike skip().
void read(json::Reader& in) {
  switch (in.peek()) {
    case json::Kind::kObject:
      return in.object([&](const std::string&) { read(in); });
    case json::Kind::kArray:
      return in.array([&] { read(in); });
    case json::Kind::kString: {
      const std::string text = in.string();
      require(json::find_invalid_utf8(text) == std::string_view::npos);
      std::string literal;
      json::append_string(literal, text);
      json::Reader again(literal);
      require(again.string() == text);
      return again.finish();
    }
    case json::Kind::kNumber:
      in.number();
      return;
    case json::Kind::kBool:
      in.boolean();
      return;
    case json::Kind::kNull:
      return in.null();
  }
}

template <class F>
bool accepts(std::string_view text, F&& read_value) {
  try {
    json::Reader in(text);
    read_value(in);
    in.finish();
    return true;
  } catch (const json::ParseError&) {
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t bad = json::find_invalid_utf8(text);
  if (bad != std::string_view::npos) {
    require(bad < size && json::find_invalid_utf8(text.substr(0, bad)) == std::string_view::npos);
    return 0;
  }
  require(accepts(text, read) == accepts(text, [](json::Reader& in) { in.skip(); }));
  return 0;
}

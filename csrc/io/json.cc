#include "io/json.h"

#include <charconv>
#include <cmath>
#include <limits>

namespace deepseek::io::json {

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::kObject:
      return "an object";
    case Kind::kArray:
      return "an array";
    case Kind::kString:
      return "a string";
    case Kind::kNumber:
      return "a number";
    case Kind::kBool:
      return "a boolean";
    case Kind::kNull:
      return "null";
  }
  return "nothing";
}

size_t find_invalid_utf8(std::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const size_t n = text.size();
  auto continuation = [&](size_t i, unsigned char low, unsigned char high) {
    return i < n && p[i] >= low && p[i] <= high;
  };
  size_t i = 0;
  while (i < n) {
    const unsigned char c = p[i];
    if (c < 0x80) {
      ++i;
    } else if (c >= 0xC2 && c <= 0xDF) {
      if (!continuation(i + 1, 0x80, 0xBF)) return i;
      i += 2;
    } else if (c >= 0xE0 && c <= 0xEF) {
      const unsigned char low = c == 0xE0 ? 0xA0 : 0x80, high = c == 0xED ? 0x9F : 0xBF;
      if (!continuation(i + 1, low, high) || !continuation(i + 2, 0x80, 0xBF)) return i;
      i += 3;
    } else if (c >= 0xF0 && c <= 0xF4) {
      const unsigned char low = c == 0xF0 ? 0x90 : 0x80, high = c == 0xF4 ? 0x8F : 0xBF;
      if (!continuation(i + 1, low, high) || !continuation(i + 2, 0x80, 0xBF) || !continuation(i + 3, 0x80, 0xBF))
        return i;
      i += 4;
    } else {
      return i;
    }
  }
  return std::string_view::npos;
}

void Reader::error(const std::string& what) const { throw ParseError(what + " at byte " + std::to_string(at_)); }

char Reader::next_significant() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c != ' ' && c != '\n' && c != '\t' && c != '\r') return c;
    ++at_;
  }
  error("unexpected end");
}

Kind Reader::peek() {
  const char c = next_significant();
  switch (c) {
    case '{':
      return Kind::kObject;
    case '[':
      return Kind::kArray;
    case '"':
      return Kind::kString;
    case 't':
    case 'f':
      return Kind::kBool;
    case 'n':
      return Kind::kNull;
    default:
      if (c == '-' || (c >= '0' && c <= '9')) return Kind::kNumber;
      error("expected a value");
  }
}

void Reader::enter(char open, const char* what) {
  if (next_significant() != open) error(std::string("expected ") + what);
  if (depth_left_ == 0) error("nested too deeply");
  --depth_left_;
  ++at_;
}

bool Reader::more(char close, bool first) {
  const char c = next_significant();
  if (c == close) {
    ++at_;
    return false;
  }
  if (first) return true;
  if (c != ',') error(std::string("expected ',' or '") + close + "'");
  ++at_;
  if (next_significant() == close) error("trailing comma");
  return true;
}

void Reader::colon() {
  if (next_significant() != ':') error("expected ':'");
  ++at_;
}

void Reader::literal(std::string_view word) {
  if (text_.substr(at_, word.size()) != word) error("expected " + std::string(word));
  at_ += word.size();
}

bool Reader::boolean() {
  const bool value = next_significant() == 't';
  literal(value ? "true" : "false");
  return value;
}

void Reader::null() {
  next_significant();
  literal("null");
}

uint32_t Reader::hex4() {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = at_or_nul();
    uint32_t digit;
    if (c >= '0' && c <= '9')
      digit = c - '0';
    else if (c >= 'a' && c <= 'f')
      digit = c - 'a' + 10;
    else if (c >= 'A' && c <= 'F')
      digit = c - 'A' + 10;
    else
      error("invalid \\u escape");
    value = value * 16 + digit;
  }
  return value;
}

namespace {

void append_utf8(std::string& out, uint32_t c) {
  auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

}  // namespace

void Reader::escape(std::string& out) {
  const char c = at_or_nul();
  ++at_;
  switch (c) {
    case '"':
    case '\\':
    case '/':
      out.push_back(c);
      return;
    case 'b':
      out.push_back('\b');
      return;
    case 'f':
      out.push_back('\f');
      return;
    case 'n':
      out.push_back('\n');
      return;
    case 'r':
      out.push_back('\r');
      return;
    case 't':
      out.push_back('\t');
      return;
    case 'u':
      break;
    default:
      error("invalid escape");
  }
  uint32_t code = hex4();
  if (code >= 0xDC00 && code <= 0xDFFF) error("lone surrogate");
  if (code >= 0xD800 && code <= 0xDBFF) {
    if (text_.substr(at_, 2) != "\\u") error("lone surrogate");
    at_ += 2;
    const uint32_t low = hex4();
    if (low < 0xDC00 || low > 0xDFFF) error("lone surrogate");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  append_utf8(out, code);
}

std::string Reader::string() {
  if (next_significant() != '"') error("expected a string");
  ++at_;
  std::string out;
  while (true) {
    const size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
           static_cast<unsigned char>(text_[at_]) >= 0x20)
      ++at_;
    out.append(text_, begin, at_ - begin);
    if (at_ == text_.size()) error("unterminated string");
    const char c = text_[at_];
    if (c != '"' && c != '\\') error("control character in a string");
    ++at_;
    if (c == '"') return out;
    escape(out);
  }
}

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Correctly rounded, which pow() does not promise.
double power_of_ten(int64_t exponent) {
  const std::string text = "1e" + std::to_string(exponent);
  double value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// Does significand * 10^exponent overflow a double? Scales in the two-step manner of the usual fast parsers, so a
// number next to the limit is judged as the reference reader judges it.
bool out_of_range(uint64_t significand, int64_t exponent) {
  double value = static_cast<double>(significand);
  while (std::abs(exponent) > 308) {
    if (value == 0) return false;
    if (exponent > 0) return true;
    value /= 1e308;
    exponent += 308;
  }
  return exponent >= 0 && std::isinf(value * power_of_ten(exponent));
}

// Decimal digits gathered into 64 bits; what does not fit only moves the exponent.
struct Significand {
  uint64_t value = 0;
  bool full = false;

  bool push(char digit) {
    uint64_t next;
    full = full || __builtin_mul_overflow(value, uint64_t{10}, &next) ||
           __builtin_add_overflow(next, static_cast<uint64_t>(digit - '0'), &next);
    if (!full) value = next;
    return !full;
  }
};

}  // namespace

std::optional<uint64_t> Reader::number() {
  next_significant();
  const bool negative = at_or_nul() == '-';
  if (negative) ++at_;
  if (!is_digit(at_or_nul())) error("expected a number");

  Significand digits;
  int64_t exponent = 0;
  if (at_or_nul() == '0') {
    ++at_;
    if (is_digit(at_or_nul())) error("leading zero in a number");
  } else {
    for (; is_digit(at_or_nul()); ++at_)
      if (!digits.push(text_[at_])) ++exponent;
  }
  const char next = at_or_nul();
  if (next != '.' && next != 'e' && next != 'E' && !digits.full) {
    if (negative) return std::nullopt;
    return digits.value;
  }

  if (next == '.') {
    ++at_;
    if (!is_digit(at_or_nul())) error("expected a digit after '.'");
    Significand all{digits.value, false};
    for (; is_digit(at_or_nul()); ++at_)
      if (all.push(text_[at_])) --exponent;
    digits = all;
  }
  if (at_or_nul() == 'e' || at_or_nul() == 'E') {
    ++at_;
    const bool down = at_or_nul() == '-';
    if (down || at_or_nul() == '+') ++at_;
    if (!is_digit(at_or_nul())) error("expected a digit in the exponent");
    constexpr int64_t kHuge = std::numeric_limits<int32_t>::max();
    int64_t written = 0;
    for (; is_digit(at_or_nul()); ++at_)
      if (written <= kHuge) written = written * 10 + (text_[at_] - '0');
    exponent += down ? -written : written;
  }
  if (out_of_range(digits.value, exponent)) error("number out of range");
  return std::nullopt;
}

void Reader::skip() {
  switch (peek()) {
    case Kind::kObject:
      object([&](const std::string&) { skip(); });
      return;
    case Kind::kArray:
      array([&] { skip(); });
      return;
    case Kind::kString:
      string();
      return;
    case Kind::kNumber:
      number();
      return;
    case Kind::kBool:
      boolean();
      return;
    case Kind::kNull:
      null();
      return;
  }
}

void Reader::finish() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c != ' ' && c != '\n' && c != '\t' && c != '\r') error("trailing characters");
    ++at_;
  }
}

void append_string(std::string& out, std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  out.push_back('"');
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (u < 0x20) {
          out += "\\u00";
          out.push_back(kHex[u >> 4]);
          out.push_back(kHex[u & 15]);
        } else {
          out.push_back(c);
        }
    }
  }
  out.push_back('"');
}

}  // namespace deepseek::io::json

#include "base/text.h"

#include <charconv>
#include <cmath>
#include <ostream>

#include "base/dims.h"
#include "base/scalar.h"

namespace deepseek {

namespace {
template <class T, class... Format>
void append_number(std::string& text, T value, Format... format) {
  char digits[32];  // an int64 has 20, a double at six digits 13
  text.append(digits, std::to_chars(digits, digits + sizeof digits, value, format...).ptr);
}
}  // namespace

void Word::append_to(std::string& text) const {
  switch (kind_) {
    case kText:
      text += text_;
      break;
    case kChar:
      text += char_;
      break;
    case kDouble:
      append_number(text, double_, std::chars_format::general, 6);
      break;
    case kInt:
      append_number(text, int_);
      break;
    case kUint:
      append_number(text, uint_);
      break;
    case kOther:
      other_.append(text, other_.value);
      break;
  }
}

std::string text_of(std::initializer_list<Word> words) {
  std::string text;
  for (const Word& word : words) word.append_to(text);
  return text;
}

void append(std::string& text, const Dims& d) {
  text += '[';
  for (int i = 0; i < d.size(); ++i) text += text_of({i ? ", " : "", d[i]});
  text += ']';
}
void append(std::string& text, DType t) { text += text_of({"deepseek.", name_of(t)}); }
void append(std::string& text, const Scalar& s) {
  if (s.is_bool())
    text += s.to_bool() ? "True" : "False";
  else if (!s.is_complex())
    text += s.is_float() ? text_of({s.to_double()}) : text_of({s.to_int()});
  else if (s.real() == 0 && !std::signbit(s.real()))
    text += text_of({s.imag(), 'j'});
  else
    text += text_of({'(', s.real(), std::signbit(s.imag()) ? "" : "+", s.imag(), "j)"});
}

std::ostream& operator<<(std::ostream& os, const Dims& d) { return os << text_of({d}); }
std::ostream& operator<<(std::ostream& os, DType t) { return os << text_of({t}); }
std::ostream& operator<<(std::ostream& os, const Scalar& s) { return os << text_of({s}); }

std::string either(const std::vector<std::string>& parts) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) text += i + 1 < parts.size() ? ", " : " or ";
    text += parts[i];
  }
  return text;
}

}  // namespace deepseek

#include "core/schema.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"

namespace deepseek {
namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Schema run() {
    Schema s;
    s.name = word("an op name");
    s.base = s.name.substr(0, s.name.find('.'));
    expect('(');
    bool keyword_only = false;
    while (!accept(')')) {
      if (!s.args.empty() || keyword_only) expect(',');
      if (accept('*')) {
        keyword_only = true;
        continue;
      }
      s.args.push_back(arg(s, keyword_only));
    }
    skip_space();
    if (!text_.substr(at_).starts_with("->")) error("'->'");
    at_ += 2;
    returns(s);
    return s;
  }

 private:
  static constexpr std::array<std::pair<std::string_view, ArgType>, 18> kTypes{{
      {"Tensor", ArgType::kTensor},
      {"Tensor?", ArgType::kTensor},
      {"Tensor[]", ArgType::kTensorList},
      {"Generator?", ArgType::kGenerator},
      {"device?", ArgType::kDevice},
      {"int", ArgType::kInt},
      {"float", ArgType::kFloat},
      {"bool", ArgType::kBool},
      {"Scalar", ArgType::kScalar},
      {"int[]", ArgType::kDims},
      {"str", ArgType::kStr},
      {"int?", ArgType::kOptInt},
      {"float?", ArgType::kOptFloat},
      {"bool?", ArgType::kOptBool},
      {"Scalar?", ArgType::kOptScalar},
      {"int[]?", ArgType::kOptDims},
      {"str?", ArgType::kOptStr},
      {"dtype?", ArgType::kOptDType},
  }};

  [[noreturn]] void error(std::string_view expected) const {
    fail("schema '", text_, "': expected ", expected, " at character ", at_);
  }
  void skip_space() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool accept(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) error(std::string("'") + c + "'");
  }
  static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
  }
  std::string word(std::string_view what) {
    skip_space();
    const size_t start = at_;
    while (at_ < text_.size() && is_word(text_[at_])) ++at_;
    if (start == at_) error(what);
    return std::string(text_.substr(start, at_ - start));
  }
  std::string type_text() {
    std::string t = word("a type");
    if (accept('[')) {
      expect(']');
      t += "[]";
    }
    if (accept('?')) t += "?";
    return t;
  }

  SchemaArg arg(Schema& s, bool keyword_only) {
    SchemaArg a;
    a.type = type_text();
    const auto* found = std::find_if(kTypes.begin(), kTypes.end(), [&](const auto& t) { return t.first == a.type; });
    if (found == kTypes.end()) fail("schema '", text_, "': unknown type '", a.type, "'");
    a.kind = found->second;
    a.optional_tensor = a.type == "Tensor?";
    a.varargs = accept('*');
    a.keyword_only = keyword_only;
    a.name = word("an argument name");
    if (accept('=')) {
      a.has_default = true;
      a.default_text = default_text();
    }
    if (a.kind <= ArgType::kGenerator)
      a.slot = s.num_inputs++;
    else if (a.kind != ArgType::kDevice && a.name != "requires_grad")
      a.slot = s.num_fields++;
    return a;
  }
  std::string default_text() {
    skip_space();
    const size_t start = at_;
    int depth = 0;
    while (at_ < text_.size() && (depth > 0 || (text_[at_] != ',' && text_[at_] != ')'))) {
      depth += (text_[at_] == '[') - (text_[at_] == ']');
      ++at_;
    }
    if (start == at_) error("a default value");
    return std::string(text_.substr(start, at_ - start));
  }
  void returns(Schema& s) {
    if (!accept('(')) {
      s.returns = {""};
      s.returns_list = type_text() == "Tensor[]";
      return;
    }
    do {
      type_text();
      s.returns.push_back(word("a result name"));
    } while (accept(','));
    expect(')');
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

Schema Schema::parse(std::string_view text) { return Parser(text).run(); }

}  // namespace deepseek

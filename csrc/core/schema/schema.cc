#include "core/schema/schema.h"

#include "base/check.h"
#include "core/schema/schema_types.h"

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
  std::string type_text(bool* written = nullptr) {
    std::string t = word("a type");
    if (at_ < text_.size() && text_[at_] == '|') ++at_, t += "|" + word("a type");
    if (written && accept('(')) {
      word("the letter of an alias set");
      expect('!');
      expect(')');
      *written = true;
    }
    // "int[]?" is no list or one of ints, "Tensor?[]" a list of tensors and Nones.
    for (int i = 0; i < 2; ++i) {
      if (accept('?')) t += "?";
      if (accept('[')) {
        expect(']');
        t += "[]";
      }
    }
    return t;
  }

  SchemaArg arg(Schema& s, bool keyword_only) {
    SchemaArg a;
    a.type = type_text(&a.written);
    const SchemaType* found = find_schema_type(a.type);
    if (!found) fail("schema '", text_, "': unknown type '", a.type, "'");
    a.kind = found->kind;
    a.numbers = found->numbers;
    a.optional_tensor = a.kind <= ArgType::kTensorList && a.type.find('?') != std::string::npos;
    if (a.written && a.kind > ArgType::kTensorList) fail("schema '", text_, "': only tensors are written to");
    s.writes |= a.written;
    s.num_lists += a.kind == ArgType::kTensorList;
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
    if (accept(')')) return;
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

std::string signature_text(const Schema& schema, const std::string& name) {
  std::string text = name + "(";
  bool keyword_only = false;
  for (const SchemaArg& a : schema.args) {
    if (text.back() != '(') text += ", ";
    if (a.keyword_only && !keyword_only) text += "*, ";
    keyword_only |= a.keyword_only || a.varargs;  // *size makes what follows keyword-only by itself
    if (a.varargs) {
      text += "*" + a.name + ": int";
      continue;
    }
    text += a.name + ": " + find_schema_type(a.type)->annotation;
    if (may_be_left_out(a)) text += " = " + (a.has_default ? a.default_text : "None");
  }
  text += ") -> ";
  if (schema.returns_list) return text + "tuple[Tensor, ...]";
  if (schema.returns.size() == 1) return text + "Tensor";
  if (schema.returns.empty()) return text + "None";
  for (size_t i = 0; i < schema.returns.size(); ++i) text += (i ? ", " : "(") + schema.returns[i] + ": Tensor";
  return text + ")";
}

}  // namespace deepseek

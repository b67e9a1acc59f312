// Signatures of C methods for `inspect` and `help()`, which read them from the front of the documentation.
#pragma once

#include <deque>
#include <string>
#include <string_view>

#include "python/python.h"

namespace deepseek::python {

// Rewrites the documentation of a table of methods in the form CPython knows. What a method takes besides the object
// stands in front of it in parentheses: "(dim=None) The sizes, or that of one dim."
template <class M>
void add_text_signatures(M* methods) {
  static std::deque<std::string> kept;  // CPython keeps pointers to the texts
  for (M* m = methods; m->ml_name; ++m) {
    if (!m->ml_doc || m->ml_flags & METH_STATIC) continue;
    std::string_view text = m->ml_doc;
    std::string takes;
    if (text.starts_with('(')) {
      const size_t end = text.find(") ");
      takes = ", " + std::string(text.substr(1, end - 1));
      text.remove_prefix(end + 2);
    }
    const bool keywords = (m->ml_flags & METH_KEYWORDS) != 0;
    kept.push_back(std::string(m->ml_name) + "($self" + (keywords ? ", /" + takes : takes + ", /") + ")\n--\n\n" +
                   std::string(text));
    m->ml_doc = kept.back().c_str();
  }
}

}  // namespace deepseek::python

#include <map>

#include "core/op.h"

namespace deepseek {
namespace {

struct Table {
  std::vector<const OpDef*> ops;
  std::map<std::string, const OpDef*, std::less<>> by_name;
};
Table& table() {
  static Table* t = new Table;
  return *t;
}

}  // namespace

void register_op(OpDef& def) {
  def.schema = Schema::parse(def.info->schema);
  DS_CHECK(def.schema.num_fields == static_cast<int>(def.fields.size()), "op ", def.schema.name, ": the schema has ",
           def.schema.num_fields, " attributes, the struct ", def.fields.size());
  DS_CHECK(!def.schema.writes || (def.eval && !def.info->differentiable && !def.info->inplace), "op ", def.schema.name,
           ": what writes to its arguments needs a kernel, and cannot have a derivative or an in-place form");
  for (const SchemaArg& a : def.schema.args) {
    if (a.kind <= ArgType::kDevice || a.slot < 0) continue;
    DS_CHECK(def.fields[a.slot].kind == a.kind, "op ", def.schema.name, ": argument '", a.name,
             "' and the struct's field have different types");
    if (a.has_default) set_default(a.kind, def.defaults.data() + def.fields[a.slot].offset, a.default_text);
  }
  Table& t = table();
  DS_CHECK(t.by_name.emplace(def.schema.name, &def).second, "op ", def.schema.name, " is defined twice");
  t.ops.push_back(&def);
}

const std::vector<const OpDef*>& op_table() { return table().ops; }

const OpDef* find_op(std::string_view name) {
  const auto it = table().by_name.find(name);
  return it == table().by_name.end() ? nullptr : it->second;
}

}  // namespace deepseek

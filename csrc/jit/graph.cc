#include "jit/graph.h"

#include <cstring>
#include <sstream>

namespace deepseek::jit {

namespace {
bool is_hooked(const Tensor& t) {
  const GradMeta* m = t.cell()->grad_meta.get();
  return m && (!m->leaf_hooks.empty() || !m->post_accumulate_hooks.empty());
}
}  // namespace

TensorState::TensorState(const Tensor& t)
    : dtype(t.dtype()),
      sizes(t.sizes()),
      strides(t.strides()),
      requires_grad(t.requires_grad()),
      leaf(t.is_leaf()),
      inference(t.cell()->inference),
      hooked(is_hooked(t)) {}

bool TensorState::is_of(const Tensor& t) const {
  return t.dtype() == dtype && t.sizes() == sizes && t.strides() == strides && t.requires_grad() == requires_grad &&
         t.is_leaf() == leaf && t.cell()->inference == inference && is_hooked(t) == hooked;
}

std::string TensorState::difference(const Tensor& t) const {
  if (is_of(t)) return {};
  if (t.dtype() != dtype) return text_of({"dtype ", name_of(dtype), " became ", name_of(t.dtype())});
  if (t.sizes() != sizes) return text_of({"size ", sizes, " became ", t.sizes()});
  if (t.strides() != strides) return text_of({"strides ", strides, " became ", t.strides()});
  if (t.requires_grad() != requires_grad) return text_of({"requires_grad became ", requires_grad ? "False" : "True"});
  return "whether it is a leaf, was made in inference mode, or has hooks changed";
}

bool Graph::final_effect(const GraphNode& n) const {
  if (n.step == Step::kInplace) return slots[n.in[0]].outside;
  return n.step != Step::kDraw && n.step != Step::kSetGrad && effect_outside(n);
}

bool Graph::effect_outside(const GraphNode& n) const {
  bool outside = false;
  for_each_written(n, [&](int32_t s) { outside |= slots[s].outside; });
  switch (n.step) {
    case Step::kInplace:
      return n.def->info->random || outside;
    case Step::kOp:
    case Step::kWrite:
      return outside;
    case Step::kAccumulate:
    case Step::kSetGrad:
    case Step::kDraw:
    case Step::kHost:
      return true;
    case Step::kAlias:
    case Step::kGetGrad:
    case Step::kCheck:
      return false;
  }
  return true;
}

namespace {

template <class T>
void print_field(std::ostream& os, const T& v) {
  if constexpr (std::is_same_v<T, bool>)
    os << (v ? "True" : "False");
  else if constexpr (std::is_same_v<T, Str>)
    os << "'" << v.view() << "'";
  else
    os << v;
}
template <class T>
void print_optional(std::ostream& os, const Opt<T>& v) {
  if (!v)
    os << "None";
  else
    print_field(os, *v);
}

void print_attribute(std::ostream& os, ArgType kind, const char* p) {
  const auto as = [&]<class T>(const T*) -> const T& { return *reinterpret_cast<const T*>(p); };
  switch (kind) {
#define DS_CASE(k, T) \
  case ArgType::k:    \
    return print_field(os, as(static_cast<const T*>(nullptr)));
#define DS_OPTIONAL(k, T) \
  case ArgType::k:        \
    return print_optional(os, as(static_cast<const Opt<T>*>(nullptr)));
    DS_CASE(kInt, int64_t)
    DS_CASE(kFloat, double)
    DS_CASE(kBool, bool)
    DS_CASE(kScalar, Scalar)
    DS_CASE(kDims, Dims)
    DS_CASE(kStr, Str)
    DS_OPTIONAL(kOptInt, int64_t)
    DS_OPTIONAL(kOptFloat, double)
    DS_OPTIONAL(kOptBool, bool)
    DS_OPTIONAL(kOptScalar, Scalar)
    DS_OPTIONAL(kOptDims, Dims)
    DS_OPTIONAL(kOptStr, Str)
    DS_OPTIONAL(kOptDType, DType)
#undef DS_CASE
#undef DS_OPTIONAL
    case ArgType::kTensor:
    case ArgType::kTensorList:
    case ArgType::kGenerator:
    case ArgType::kDevice:
    case ArgType::kDType:
      os << "?";  // no field of an op
  }
}

void print_slot(std::ostream& os, int32_t s) {
  if (s < 0)
    os << "None";
  else
    os << "%" << s;
}

void print_call(std::ostream& os, const GraphNode& n, const char* suffix) {
  os << n.def->name() << suffix << "(";
  const char* separator = "";
  for (const int32_t s : n.in) {
    os << separator;
    print_slot(os, s);
    separator = ", ";
  }
  for (const SchemaArg& a : n.def->schema.args) {
    if (a.slot < 0 || a.kind < ArgType::kInt) continue;
    const Field& f = n.def->fields[a.slot];
    os << separator << a.name << "=";
    print_attribute(os, f.kind, n.attributes.data() + f.offset);
    separator = ", ";
  }
  os << ")";
}

void print_type(std::ostream& os, const Slot& s) {
  os << name_of(s.meta.dtype) << "[";
  for (int i = 0; i < s.meta.sizes.size(); ++i) os << (i ? ", " : "") << s.meta.sizes[i];
  os << "]" << (s.requires_grad ? " grad" : "");
}

void print_node(std::ostream& os, const Graph& g, const GraphNode& n) {
  os << "  ";
  for (size_t i = 0; i < n.out.size(); ++i) {
    os << (i ? ", " : "");
    print_slot(os, n.out[i]);
  }
  if (!n.out.empty()) os << " = ";
  switch (n.step) {
    case Step::kOp:
      print_call(os, n, "");
      break;
    case Step::kInplace:
      print_call(os, n, "_");
      break;
    case Step::kWrite:
      os << "%" << n.in[0] << ".copy_(%" << n.in[1] << ")";
      break;
    case Step::kAlias:
      os << "%" << n.in[0] << ".alias(sizes=" << g.slots[n.out[0]].meta.sizes
         << ", strides=" << g.slots[n.out[0]].meta.strides << ", offset=" << n.number << ")";
      break;
    case Step::kAccumulate:
      os << "%" << n.in[0] << ".grad += %" << n.in[1];
      break;
    case Step::kSetGrad:
      os << "%" << n.in[0] << ".grad = ";
      print_slot(os, n.in[1]);
      break;
    case Step::kGetGrad:
      os << "%" << n.in[0] << ".grad";
      break;
    case Step::kCheck:
      os << "check %" << n.in[0] << " == " << n.expected;
      break;
    case Step::kDraw:
      os << "draw " << n.number << " numbers";
      break;
    case Step::kHost:
      os << "call " << n.host->name() << "(";
      for (size_t i = 0; i < n.in.size(); ++i) os << (i ? ", %" : "%") << n.in[i];
      os << ")";
      break;
  }
  const char* separator = "  # ";
  for (const int32_t s : n.out) {
    if (s < 0) continue;
    os << separator;
    print_type(os, g.slots[s]);
    separator = ", ";
  }
  os << "\n";
}

}  // namespace

std::string to_text(const Graph& g) {
  std::ostringstream os;
  os << "graph(";
  for (size_t i = 0; i < g.inputs.size(); ++i) {
    os << (i ? ", %" : "%") << g.inputs[i] << ": ";
    print_type(os, g.slots[g.inputs[i]]);
  }
  os << ")\n";
  for (const Captured& c : g.captured) {
    os << "  %" << c.slot << (c.constant ? " = constant " : " = captured ");
    print_type(os, g.slots[c.slot]);
    if (c.tensor.numel() == 1 && c.constant) os << " " << c.tensor.item();
    os << "\n";
  }
  for (const GraphNode& n : g.nodes) print_node(os, g, n);
  os << "  return (";
  for (size_t i = 0; i < g.outputs.size(); ++i) os << (i ? ", %" : "%") << g.outputs[i];
  os << ")\n";
  return os.str();
}

void verify(const Graph& g) {
  enum class State : uint8_t { kUnseen, kLive, kReleased };
  std::vector<State> state(g.slots.size(), State::kUnseen);
  const auto define = [&](int32_t s, const std::string& where) {
    DS_CHECK(s >= 0 && static_cast<size_t>(s) < g.slots.size(), "jit: ", where, " defines slot ", s, " of ",
             g.slots.size());
    DS_CHECK(state[s] == State::kUnseen, "jit: ", where, " defines slot %", s, " a second time");
    state[s] = State::kLive;
  };
  const auto use = [&](int32_t s, const std::string& where) {
    DS_CHECK(s >= 0 && static_cast<size_t>(s) < g.slots.size() && state[s] == State::kLive, "jit: ", where,
             " reads slot %", s,
             s >= 0 && static_cast<size_t>(s) < g.slots.size() && state[s] == State::kReleased
                 ? " after its release"
                 : " before it is defined");
  };
  for (const int32_t s : g.inputs)  // one tensor may be given twice
    if (s < 0 || static_cast<size_t>(s) >= g.slots.size() || state[s] == State::kUnseen) define(s, "the argument list");
  for (const Captured& c : g.captured) define(c.slot, "the list of captured tensors");
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    const GraphNode& n = g.nodes[i];
    std::string where = "node " + std::to_string(i);
    if (n.def) where += std::string(" (") + n.def->name() + ")";
    const bool calls_op = n.step == Step::kOp || n.step == Step::kInplace;
    DS_CHECK(calls_op == (n.def != nullptr), "jit: ", where, " has ", n.def ? "an" : "no", " op");
    DS_CHECK(!calls_op || n.attributes.size() == attribute_bytes(*n.def), "jit: ", where, " has ", n.attributes.size(),
             " bytes of attributes, its op ", calls_op ? attribute_bytes(*n.def) : 0);
    for (const int32_t s : n.in)
      if (s >= 0) use(s, where);
    for (const int32_t s : n.out)
      if (s >= 0) define(s, where);
    for (const int32_t s : n.release) {
      use(s, where + "'s release list");
      state[s] = State::kReleased;
    }
  }
  for (const int32_t s : g.outputs) use(s, "the result list");
}

}  // namespace deepseek::jit

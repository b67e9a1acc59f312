#include "python/collect.h"

#include <algorithm>

#include "autograd/engine.h"

namespace deepseek::python {

void release(PyObject* o, size_t references) {
  if (!o || !Py_IsInitialized()) return;
  const InterpreterLock lock;
  for (; references > 0; --references) Py_DECREF(o);
}

void TapeVisit::object(void* o) {
  if (o && !stop_) stop_ = visit_(static_cast<PyObject*>(o), arg_);
}

void TapeVisit::hooks(const std::vector<HookEntry>& list) {
  for (const HookEntry& h : list)
    if (h.hook && h.hook->use_count() == 1) object(h.hook->python());
}

// One reference to a tensor. Its object visits the rest, if there is one.
void TapeVisit::tensor(const Tensor& t) {
  if (!t.defined() || t.cell()->use_count() != 1) return;
  if (t.cell()->python_owned)
    object(t.cell()->python);
  else if (const GradMeta* m = t.cell()->grad_meta.get())
    meta(*m);
}

void TapeVisit::stored(const Stored& s) {
  if (s.use_count() == 1)
    for (void* o : s.python()) object(o);
}

void TapeVisit::cell(const Cell* c) {
  if (!c || c->use_count() != 1 || !c->grad_meta) return;
  meta(*c->grad_meta);
  Node* n = c->grad_meta->edge.node.get();
  if (!n || !tape_holds_python()) return;
  if (auto* f = n->use_count() > 1 ? dynamic_cast<FunctionNode*>(n) : nullptr) shared(*f, c);
}

void TapeVisit::meta(const GradMeta& m) {
  hooks(m.leaf_hooks);
  hooks(m.post_accumulate_hooks);
  if (!tape_holds_python()) return;
  tensor(m.grad);
  tensor(m.base);
  node(m.edge.node.get());
}

void TapeVisit::node(Node* n) {
  if (!n || !tape_holds_python()) return;
  if (const uint32_t all = n->use_count(); all == 1 || ++met_[n] == all) ours_.push_back(n);
}

int TapeVisit::finish() {
  while (!ours_.empty() && !stop_) {
    Node* n = ours_.back();
    ours_.pop_back();
    inside(n);
  }
  return stop_;
}

void TapeVisit::inside(Node* n) {
  hooks(n->hooks);
  if (const auto* f = dynamic_cast<FunctionNode*>(n)) {
    object(f->ctx_);
    for (size_t i = 0; i < f->outputs_.size(); ++i) object(f->ctx_);
  }
  n->for_each_stored([&](const Stored& s) { stored(s); });
  if (const Tensor* leaf = leaf_of(*n)) tensor(*leaf);
  for (const Edge& e : n->next) node(e.node.get());
}

// A Function of several outputs, all that is left of its users: each visits the ctx, together as often as the node
// holds it.
void TapeVisit::shared(FunctionNode& f, const Cell* from) {
  std::vector<const Cell*> users;
  for (const Ref<WeakCell>& w : f.outputs_) {
    const Cell* c = w->cell;
    if (!c || c->use_count() != 1 || !c->python || c->grad_meta->edge.node.get() != &f) continue;
    users.push_back(c);
  }
  if (users.size() != f.use_count() || std::ranges::find(users, from) == users.end()) return;
  const size_t visits = from == users.front() ? f.outputs_.size() + 2 - users.size() : 1;
  for (size_t i = 0; i < visits; ++i) object(f.ctx_);
}

}  // namespace deepseek::python

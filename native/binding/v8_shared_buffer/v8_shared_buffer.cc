// A tiny addon of its own, loaded only where Node-API cannot make a SharedArrayBuffer over foreign
// memory: V8's C++ interface ties a binary to one major version of Node.js, and the rest of
// pagemesh must not be tied.
#include <node.h>
#include <v8.h>

#include <cstdint>
#include <memory>

namespace {

using Release = void (*)(void* data, void* hint);

struct Owner {
  Release release;
  void* hint;
};

// Any thread.
void OnBackingStoreDeath(void* data, size_t /*length*/, void* deleter_data) {
  Owner* owner = static_cast<Owner*>(deleter_data);
  owner->release(data, owner->hint);
  delete owner;
}

// wrap(parts: BigUint64Array of address, byte length, release function, its argument)
void Wrap(const v8::FunctionCallbackInfo<v8::Value>& info) {
  v8::Isolate* isolate = info.GetIsolate();
  if (info.Length() != 1 || !info[0]->IsBigUint64Array()) {
    isolate->ThrowException(v8::Exception::TypeError(
        v8::String::NewFromUtf8Literal(isolate, "expected a BigUint64Array")));
    return;
  }
  uint64_t parts[4] = {};
  info[0].As<v8::BigUint64Array>()->CopyContents(parts, sizeof(parts));
  Owner* owner = new Owner{reinterpret_cast<Release>(parts[2]), reinterpret_cast<void*>(parts[3])};
  std::unique_ptr<v8::BackingStore> store = v8::SharedArrayBuffer::NewBackingStore(
      reinterpret_cast<void*>(parts[0]), parts[1], OnBackingStoreDeath, owner);
  info.GetReturnValue().Set(v8::SharedArrayBuffer::New(isolate, std::move(store)));
}

void Init(v8::Local<v8::Object> exports) { NODE_SET_METHOD(exports, "wrap", Wrap); }

}  // namespace

NODE_MODULE_INIT() {
  (void)module;
  (void)context;
  Init(exports);
}

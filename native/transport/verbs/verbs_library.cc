#include "transport/verbs/verbs_library.h"

#if PAGEMESH_HAS_VERBS

#include <dlfcn.h>

#include <type_traits>

namespace pagemesh {
namespace {

bool Fill(void* library, VerbsLibrary* functions) {
  bool complete = true;
  const auto find = [&](const char* name, auto* into) {
    void* found = dlsym(library, name);
    if (found == nullptr) complete = false;
    *into = reinterpret_cast<std::remove_reference_t<decltype(*into)>>(found);
  };
  find("ibv_get_device_list", &functions->get_device_list);
  find("ibv_free_device_list", &functions->free_device_list);
  find("ibv_get_device_name", &functions->get_device_name);
  find("ibv_open_device", &functions->open_device);
  find("ibv_close_device", &functions->close_device);
  find("ibv_query_device", &functions->query_device);
  find("ibv_query_port", &functions->query_port);
  find("ibv_query_gid", &functions->query_gid);
  find("ibv_alloc_pd", &functions->alloc_pd);
  find("ibv_dealloc_pd", &functions->dealloc_pd);
  find("ibv_reg_mr", &functions->reg_mr);
  find("ibv_dereg_mr", &functions->dereg_mr);
  find("ibv_create_comp_channel", &functions->create_comp_channel);
  find("ibv_destroy_comp_channel", &functions->destroy_comp_channel);
  find("ibv_create_cq", &functions->create_cq);
  find("ibv_destroy_cq", &functions->destroy_cq);
  find("ibv_get_cq_event", &functions->get_cq_event);
  find("ibv_ack_cq_events", &functions->ack_cq_events);
  find("ibv_create_qp", &functions->create_qp);
  find("ibv_modify_qp", &functions->modify_qp);
  find("ibv_destroy_qp", &functions->destroy_qp);
  find("ibv_get_async_event", &functions->get_async_event);
  find("ibv_ack_async_event", &functions->ack_async_event);
  find("ibv_fork_init", &functions->fork_init);
  return complete;
}

}  // namespace

const VerbsLibrary* VerbsLibrary::Load(const char** why) {
  static VerbsLibrary functions = {};
  static const char* reason = "libibverbs.so.1 is not installed";
  static const bool loaded = [] {
    void* library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) return false;
    if (!Fill(library, &functions)) {
      reason = "libibverbs.so.1 is too old";
      return false;
    }
    // Programs start child processes: memory that a device writes must not be copied on write.
    functions.fork_init();
    return true;
  }();
  if (!loaded) *why = reason;
  return loaded ? &functions : nullptr;
}

}  // namespace pagemesh

#endif  // PAGEMESH_HAS_VERBS

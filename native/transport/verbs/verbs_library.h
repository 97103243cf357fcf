// libibverbs, opened at run time: one build of the addon runs on machines with and without it.
#ifndef PAGEMESH_TRANSPORT_VERBS_VERBS_LIBRARY_H_
#define PAGEMESH_TRANSPORT_VERBS_VERBS_LIBRARY_H_

// The headers are needed to build with RDMA (Debian: libibverbs-dev); without them pagemesh is
// built for TCP alone.
#if __has_include(<infiniband/verbs.h>)
#define PAGEMESH_HAS_VERBS 1
#include <infiniband/verbs.h>

namespace pagemesh {

// The functions that the library exports; what verbs.h defines inline (posting, polling, asking for
// events) goes through the opened device itself.
struct VerbsLibrary {
  ibv_device** (*get_device_list)(int* count);
  void (*free_device_list)(ibv_device** list);
  const char* (*get_device_name)(ibv_device* device);
  ibv_context* (*open_device)(ibv_device* device);
  int (*close_device)(ibv_context* context);
  int (*query_device)(ibv_context* context, ibv_device_attr* attributes);
  int (*query_port)(ibv_context* context, uint8_t port, _compat_ibv_port_attr* attributes);
  int (*query_gid)(ibv_context* context, uint8_t port, int index, ibv_gid* gid);
  ibv_pd* (*alloc_pd)(ibv_context* context);
  int (*dealloc_pd)(ibv_pd* pd);
  ibv_mr* (*reg_mr)(ibv_pd* pd, void* address, size_t length, int access);
  int (*dereg_mr)(ibv_mr* mr);
  ibv_comp_channel* (*create_comp_channel)(ibv_context* context);
  int (*destroy_comp_channel)(ibv_comp_channel* channel);
  ibv_cq* (*create_cq)(ibv_context* context, int entries, void* cookie, ibv_comp_channel* channel,
                       int vector);
  int (*destroy_cq)(ibv_cq* cq);
  int (*get_cq_event)(ibv_comp_channel* channel, ibv_cq** cq, void** cookie);
  void (*ack_cq_events)(ibv_cq* cq, unsigned int count);
  ibv_qp* (*create_qp)(ibv_pd* pd, ibv_qp_init_attr* attributes);
  int (*modify_qp)(ibv_qp* qp, ibv_qp_attr* attributes, int mask);
  int (*destroy_qp)(ibv_qp* qp);
  int (*get_async_event)(ibv_context* context, ibv_async_event* event);
  void (*ack_async_event)(ibv_async_event* event);
  int (*fork_init)();

  // Opens the library once a process. nullptr if it is not there, with a reason in `*why`.
  static const VerbsLibrary* Load(const char** why);
};

// The devices that libibverbs can drive.
class VerbsDeviceList {
 public:
  explicit VerbsDeviceList(const VerbsLibrary* verbs)
      : verbs_(verbs), list_(verbs->get_device_list(&count_)) {}
  ~VerbsDeviceList() {
    if (list_ != nullptr) verbs_->free_device_list(list_);
  }
  VerbsDeviceList(const VerbsDeviceList&) = delete;
  VerbsDeviceList& operator=(const VerbsDeviceList&) = delete;
  int count() const { return list_ == nullptr ? 0 : count_; }
  ibv_device* at(int index) const { return list_[index]; }

 private:
  const VerbsLibrary* const verbs_;
  int count_ = 0;
  ibv_device** const list_;
};

}  // namespace pagemesh

#else
#define PAGEMESH_HAS_VERBS 0
#endif

#endif  // PAGEMESH_TRANSPORT_VERBS_VERBS_LIBRARY_H_

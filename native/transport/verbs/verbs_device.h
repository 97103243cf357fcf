// One RDMA device, opened: its protection domain, completion queue and registered memory.
#ifndef PAGEMESH_TRANSPORT_VERBS_VERBS_DEVICE_H_
#define PAGEMESH_TRANSPORT_VERBS_VERBS_DEVICE_H_

#include <atomic>
#include <memory>
#include <string>
#include <unordered_map>

#include "transport/transport.h"
#include "transport/verbs/verbs_frames.h"
#include "transport/verbs/verbs_library.h"

#if PAGEMESH_HAS_VERBS

namespace pagemesh {

// Which port and address of which device; what `pagemesh doctor` and errors show.
struct VerbsPort {
  std::string device;
  uint8_t port = 0;
  int gid_index = 0;
  ibv_gid gid = {};
  ibv_mtu mtu = IBV_MTU_1024;
};

class VerbsDevice {
 public:
  // Opens a device for links to so many members. nullptr with a reason in `*why`.
  static std::unique_ptr<VerbsDevice> Open(const RdmaAddress& at, int members, std::string* why);
  ~VerbsDevice();
  VerbsDevice(const VerbsDevice&) = delete;
  VerbsDevice& operator=(const VerbsDevice&) = delete;

  // How many bytes this process may lock; no limit for a process with CAP_IPC_LOCK.
  static size_t MemlockLimit();

  const VerbsLibrary& library() const { return *library_; }
  const VerbsPort& port() const { return port_; }
  ibv_pd* pd() const { return pd_; }
  ibv_cq* cq() const { return cq_; }
  int event_fd() const { return channel_->fd; }
  int async_fd() const { return context_->async_fd; }

  // Whether words can be changed by RDMA atomics, and how many of them (and of RDMA READs) a queue
  // pair may have under way: as the one that asks, and as the one that is asked.
  bool has_atomics() const { return has_atomics_; }
  uint32_t max_atomics_out() const { return max_atomics_out_; }
  uint32_t max_atomics_in() const { return max_atomics_in_; }

  // Asks for an event at the next completion: of any kind, or else of one that the sender marked as
  // worth it, or that failed. What is complete already must be looked for after it. Any thread, in
  // signal handlers too.
  void Arm(bool every_completion);
  // Takes the pending events of the channel. Engine thread.
  void AcknowledgeEvents();
  // Takes what the device has to say that ends links: of the queue pair with this number, or, if
  // that is 0, of all. False: nothing more for now. Engine thread.
  bool TakeEvent(ibv_event_type* type, uint32_t* qp_number);

  // The registration that covers a page's frame; registers its chunk first. nullptr if that fails
  // (errno). Engine thread.
  ibv_mr* Register(const RegionMemory& memory, uint32_t page);
  // The same if the chunk is registered already, else nullptr. Any thread, in signal handlers too.
  ibv_mr* FindRegistered(const RegionMemory& memory, uint32_t page) const;
  // Withdraws every right on the region's memory. Engine thread, no transfer under way.
  void Forget(uint32_t region);

 private:
  VerbsDevice() = default;
  bool OpenQueues(int members, std::string* why);

  static constexpr int kMaxAtomics = 16;  // more would wait for each other at the home anyway
  static constexpr uint32_t kMaxRegions = 1024;
  struct Chunks {
    size_t count = 0;
    std::unique_ptr<std::atomic<ibv_mr*>[]> registered;
  };

  const VerbsLibrary* library_ = nullptr;
  VerbsPort port_;
  ibv_context* context_ = nullptr;
  ibv_pd* pd_ = nullptr;
  ibv_comp_channel* channel_ = nullptr;
  ibv_cq* cq_ = nullptr;
  bool has_atomics_ = false;
  uint32_t max_atomics_out_ = 0, max_atomics_in_ = 0;
  std::atomic<Chunks*> regions_[kMaxRegions] = {};
};

}  // namespace pagemesh

#endif  // PAGEMESH_HAS_VERBS

#endif  // PAGEMESH_TRANSPORT_VERBS_VERBS_DEVICE_H_

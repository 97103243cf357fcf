// What RDMA devices this machine has, as far as this process may use them.
#ifndef PAGEMESH_TRANSPORT_VERBS_VERBS_INVENTORY_H_
#define PAGEMESH_TRANSPORT_VERBS_VERBS_INVENTORY_H_

#include <string>
#include <vector>

namespace pagemesh {

struct RdmaGid {
  int index = 0;
  std::string address;  // as text; an IPv4-mapped one as IPv4
  std::string kind;     // "RoCE v2", "RoCE v1", "InfiniBand"; empty if sysfs does not tell
  std::string network;  // the network device that has the address; empty if there is none
};

struct RdmaPort {
  int number = 0;
  std::string state;  // "active" is the one that can be used
  std::string link_layer;
  int active_mtu_bytes = 0;
  std::vector<RdmaGid> gids;
};

struct RdmaDevice {
  std::string name;
  bool has_provider = false;  // libibverbs knows how to drive it
  int error = 0;              // errno of opening it
  std::vector<RdmaPort> ports;
};

struct RdmaInventory {
  std::string unavailable;  // why no device can be used at all; empty if libibverbs is there
  std::vector<RdmaDevice> devices;
};

// Opens each device for a moment. Any thread.
RdmaInventory ListRdmaDevices();

}  // namespace pagemesh

#endif  // PAGEMESH_TRANSPORT_VERBS_VERBS_INVENTORY_H_

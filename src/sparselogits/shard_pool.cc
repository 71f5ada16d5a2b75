#include "sparselogits/shard_pool.h"

#include <pthread.h>

#include <algorithm>
#include <deque>
#include <mutex>
#include <utility>

namespace sparselogits {
namespace {

constexpr size_t kOpenedAhead = 64;
constexpr size_t kLikelyTail = 8192;  // footer and index of most shards

// Of all pools: a fork has to hold it, so that the child finds the lists whole and the mutex free.
// Never held while a file is opened, read or unmapped.
std::mutex mutex;
const int fork_handlers =
    pthread_atfork([] { mutex.lock(); }, [] { mutex.unlock(); }, [] { mutex.unlock(); });

Status CheckRow(const ShardReader& shard, const ShardRow& row, const ShardConfig& config) {
  const auto differs = [&](const char* field, const std::string& what) {
    return Status::Corruption("the shard is not the one of the manifest: " + what)
        .Field(field)
        .In(row.path);
  };
  if (shard.header().uuid != row.uuid) return differs("uuid", "another uuid");
  const auto compare = [&](const char* field, uint64_t found, uint64_t stated) {
    if (found == stated) return Status::Ok();
    return differs(field, std::to_string(found) + " " + field + " in the shard, " +
                              std::to_string(stated) + " in the manifest");
  };
  SPARSELOGITS_RETURN_IF_ERROR(compare("bytes", shard.footer().file_length, row.file_length));
  SPARSELOGITS_RETURN_IF_ERROR(
      compare("sequences", shard.footer().totals.num_sequences, row.totals.num_sequences));
  SPARSELOGITS_RETURN_IF_ERROR(
      compare("positions", shard.footer().totals.num_positions, row.totals.num_positions));
  SPARSELOGITS_RETURN_IF_ERROR(
      compare("entries", shard.footer().totals.num_entries, row.totals.num_entries));
  if (!(shard.header().config == config)) return differs("config", "another configuration");
  return Status::Ok();
}

}  // namespace

Status ShardPool::Open(const std::vector<ShardRow>& rows, const ShardConfig& config,
                       const Models& models, CheckPayload check_payloads, size_t max_open,
                       ShardFiles files, std::unique_ptr<ShardPool>* out) {
  if (max_open == 0) return Status::InvalidArgument("max_open_shards must be at least 1, got 0");
  if (fork_handlers != 0)
    return Status::Io("cannot register what keeps forks safe (pthread_atfork)", fork_handlers);
  std::unique_ptr<ShardPool> pool(new ShardPool);
  pool->rows_ = rows;
  pool->config_ = config;
  pool->models_ = models;
  pool->check_payloads_ = check_payloads;
  pool->max_open_ = max_open;
  pool->files_ = files;
  pool->slots_.resize(rows.size());
  if (files == ShardFiles::kAllThere) SPARSELOGITS_RETURN_IF_ERROR(pool->OpenAll());
  *out = std::move(pool);
  return Status::Ok();
}

// Looks at the files a few shards ahead, so that the disk, which may be cold or far away, is asked
// for many at a time. Threads would do the same; but a process that has no maps left is ended by
// the C library when it starts one.
Status ShardPool::OpenAll() const {
  std::deque<std::unique_ptr<MappedFile>> ahead;  // of shard i and those after it
  bool looks_ahead = true;
  for (size_t i = 0; i < rows_.size(); ++i) {
    while (looks_ahead && ahead.size() < kOpenedAhead && i + ahead.size() < rows_.size()) {
      std::unique_ptr<MappedFile> file;
      if (!MappedFile::Open(rows_[i + ahead.size()].path, &file).ok()) {
        // Not its turn yet. Where maps run out, memory for what comes before it needs some too.
        looks_ahead = false;
        ahead.clear();
        break;
      }
      file->ReadAhead(false);
      file->WillTouch(0, kHeaderLength);
      file->WillTouch(file->bytes().size() - std::min(file->bytes().size(), kLikelyTail),
                      kLikelyTail);
      ahead.push_back(std::move(file));
    }
    std::unique_ptr<MappedFile> file;
    if (!ahead.empty()) {
      file = std::move(ahead.front());
      ahead.pop_front();
    } else {
      SPARSELOGITS_RETURN_IF_ERROR(MappedFile::Open(rows_[i].path, &file));
    }
    std::shared_ptr<const ShardReader> shard;
    SPARSELOGITS_RETURN_IF_ERROR(OpenShard(i, std::move(file), &shard));
    Keep(i, &shard);
  }
  return Status::Ok();
}

Status ShardPool::OpenShard(size_t i, std::unique_ptr<MappedFile> file,
                            std::shared_ptr<const ShardReader>* shard) const {
  std::unique_ptr<ShardReader> opened;
  SPARSELOGITS_RETURN_IF_ERROR(
      ShardReader::Open(std::move(file), models_, check_payloads_, &opened));
  SPARSELOGITS_RETURN_IF_ERROR(CheckRow(*opened, rows_[i], config_));
  *shard = std::move(opened);
  return Status::Ok();
}

Status ShardPool::OpenShard(size_t i, std::shared_ptr<const ShardReader>* shard) const {
  std::unique_ptr<MappedFile> file;
  SPARSELOGITS_RETURN_IF_ERROR(MappedFile::Open(rows_[i].path, &file));
  return OpenShard(i, std::move(file), shard);
}

// Adds an open shard, and closes the one that was used longest ago where there are too many.
// Where another thread was faster, *shard becomes that thread's.
void ShardPool::Keep(size_t i, std::shared_ptr<const ShardReader>* shard) const {
  std::shared_ptr<const ShardReader> dropped;  // unmapped after the mutex is free again
  const std::lock_guard lock(mutex);
  Slot& slot = slots_[i];
  if (slot.shard != nullptr) {
    dropped = std::exchange(*shard, slot.shard);
    return;
  }
  recent_.push_front(i);
  slot = {*shard, recent_.begin()};
  if (recent_.size() > max_open_) {
    dropped = std::exchange(slots_[recent_.back()].shard, nullptr);
    recent_.pop_back();
  }
}

Status ShardPool::Get(size_t i, std::shared_ptr<const ShardReader>* shard) const {
  if (all_stay_open()) {
    // A pointer without a reference count: threads that share a cache have nothing to contend for.
    *shard = {std::shared_ptr<void>(), slots_[i].shard.get()};
    return Status::Ok();
  }
  std::shared_ptr<const ShardReader> found;
  {
    const std::lock_guard lock(mutex);
    const Slot& slot = slots_[i];
    if (slot.shard != nullptr && files_ == ShardFiles::kAllThere)
      recent_.splice(recent_.begin(), recent_, slot.place);
    found = slot.shard;
  }
  if (found == nullptr && files_ == ShardFiles::kComeAndGo)
    return Status::Internal("shard " + std::to_string(i) + " is read, but nobody holds it")
        .In(rows_[i].path);
  if (found == nullptr) {
    SPARSELOGITS_RETURN_IF_ERROR(OpenShard(i, &found));
    Keep(i, &found);
  }
  *shard = std::move(found);
  return Status::Ok();
}

Status ShardPool::CheckComesAndGoes() const {
  if (files_ == ShardFiles::kComeAndGo) return Status::Ok();
  return Status::Internal("the shards of this cache do not come and go");
}

Status ShardPool::Admit(size_t i) const {
  SPARSELOGITS_RETURN_IF_ERROR(CheckComesAndGoes());
  std::shared_ptr<const ShardReader> shard;  // in the end the old one, unmapped without the mutex
  SPARSELOGITS_RETURN_IF_ERROR(OpenShard(i, &shard));
  const std::lock_guard lock(mutex);
  slots_[i].shard.swap(shard);
  return Status::Ok();
}

Status ShardPool::Dismiss(size_t i) const {
  SPARSELOGITS_RETURN_IF_ERROR(CheckComesAndGoes());
  std::shared_ptr<const ShardReader> shard;  // unmapped after the mutex is free again
  const std::lock_guard lock(mutex);
  slots_[i].shard.swap(shard);
  return Status::Ok();
}

}  // namespace sparselogits

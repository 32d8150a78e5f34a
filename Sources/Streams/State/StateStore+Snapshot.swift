import Base

/// Checkpoints of a store, and what it may forget once they are on the disk.
extension StateStore {
    package func attach(_ disk: StateDisk, count: Int) {
        self.disk = disk
        total = count
    }

    package func detach() {
        disk = nil
        leafScan = nil
    }

    package func snapshotStored(_ runs: [StateRun]) { disk?.runs = runs }

    package func beginSnapshot() {
        precondition(held.isEmpty, "one snapshot at a time")
        guard !dirty.isEmpty else { return }
        swap(&held, &dirty)
        taken = 0
        epoch += 1
    }

    package func takeSnapshot(limit: Int, into delta: inout StateDelta) -> Bool {
        let end = limit < held.count - taken ? taken + limit : held.count
        while taken < end {
            let place = Place(packed: held[taken])
            taken += 1
            if shards[place.shard].slots[place.index].dirtyEpoch == epoch {
                // It changed meanwhile: as it was, and it is dirty still.
                if let before = early[place.packed] { take(place, encoded: before, &delta) }
            } else {
                shards[place.shard].slots[place.index].dirtyEpoch = 0
                take(place, &delta)
            }
        }
        guard taken == held.count else { return false }
        held.removeAll(keepingCapacity: true)
        taken = 0
        early = [:]
        return true
    }

    func position(_ place: Place) -> UInt64 {
        let hash = shards[place.shard].slots[place.index].hash
        guard let placing else { return hash }
        var key = shards[place.shard].slots[place.index].key
        return key.withUTF8 { placing(UnsafeRawBufferPointer($0)) }
    }

    private func take(_ place: Place, _ delta: inout StateDelta) {
        let key = shards[place.shard].slots[place.index].key
        guard let value = contents[place.shard][place.index] else {
            gone.append(place.packed)
            drop(place, &delta)
            return
        }
        weigh(place, delta.append(key, place: position(place), value))
        shards[place.shard].slots[place.index].isStored = true
    }

    private func take(_ place: Place, encoded: [UInt8]?, _ delta: inout StateDelta) {
        guard let encoded else {
            drop(place, &delta)
            return
        }
        delta.append(shards[place.shard].slots[place.index].key, place: position(place), encoded: encoded)
        shards[place.shard].slots[place.index].isStored = true
    }

    /// A key that no run holds a value of needs nothing that hides it.
    private func drop(_ place: Place, _ delta: inout StateDelta) {
        guard shards[place.shard].slots[place.index].isStored else { return }
        delta.append(shards[place.shard].slots[place.index].key, place: position(place), Value?.none)
        shards[place.shard].slots[place.index].isStored = false
    }

    /// Everything that changed since the last snapshot, at once; for tests.
    package func takeChanges() -> StateDelta {
        beginSnapshot()
        var delta = StateDelta(store: name)
        _ = takeSnapshot(limit: .max, into: &delta)
        return delta
    }

    package func forget(_ room: inout Int) {
        while room > 0, let last = gone.popLast() {
            room -= 1
            let place = Place(packed: last)
            if shards[place.shard].isGone(place.index) { release(place) }
        }
    }

    package func evict(_ room: inout Int) {
        guard disk != nil, !isWhole else { return }
        // Twice round at most: the first time may only note who was not used since.
        var left = 2 * (slotCount + shards.count)
        while room > 0, left > 0 {
            room -= 1
            left -= 1
            guard hand.index < shards[hand.shard].slots.count else {
                hand = Place((hand.shard + 1) & 255, 0)
                continue
            }
            if shards[hand.shard].isIdle(hand.index) { release(hand) }
            hand = Place(hand.shard, hand.index + 1)
        }
    }
}

/// The digest of a store.
extension StateStore {
    /// Brings the leaves up to what a slot says now.
    func account(_ place: Place) {
        let leaf = leaf(place)
        leaves.replace(
            shards[place.shard].slots[place.index].leaf, with: leaf,
            in: StateLeaves.bucket(of: shards[place.shard].slots[place.index].hash))
        shards[place.shard].slots[place.index].leaf = leaf
        shards[place.shard].slots[place.index].isUndigested = false
    }

    private func leaf(_ place: Place) -> Digest {
        guard let value = contents[place.shard][place.index] else { return .zero }
        scratch.bytes.removeAll(keepingCapacity: true)
        scratch.append(sized: shards[place.shard].slots[place.index].key)
        value.encode(into: &scratch)
        return Digest.of(scratch.bytes)
    }

    package func prepareDigest() {
        // What is in memory by now is as the disk has it, and its leaves are known.
        guard keepsDigest, !isDigestPrepared, epoch == 1, dirty.isEmpty else { return }
        isDigestPrepared = true
        guard let disk, !disk.runs.isEmpty else { return }
        leaves.isComplete = false
        leafScan = StateLeafScan(disk)
    }

    package func digest() -> Digest {
        guard keepsDigest, isDigestPrepared else {
            leaves = allLeaves()
            isDigestPrepared = keepsDigest
            undigested.removeAll(keepingCapacity: true)
            return leaves.root(of: name)
        }
        for packed in undigested {
            let place = Place(packed: packed)
            if shards[place.shard].slots[place.index].isUndigested { account(place) }
        }
        undigested.removeAll(keepingCapacity: true)
        stale = 0
        if let scan = leafScan {
            leafScan = nil
            switch scan.join() {
            case .success(let found):
                leaves.merge(found)
                leaves.isComplete = true
            case .failure(let error): disk?.reader.fail(error)
            }
        }
        return leaves.root(of: name)
    }

    package func bucketDigests() -> [Digest] {
        _ = digest()
        return leaves.digests()
    }

    package func leaves(inBucket bucket: Int) -> [(key: String, leaf: Digest)] {
        var found: [(key: String, leaf: Digest)] = []
        if let disk, isOnDisk {
            _ = disk.reader.read { database in
                try StateMerge(disk.runs, database).forEach { entry in
                    let hash = entry.hash
                    guard entry.value != nil, StateLeaves.bucket(of: hash) == bucket else { return }
                    let key = String(decoding: entry.key, as: UTF8.self)
                    if shards[bucket].find(key, hash) == nil { found.append((key, entry.leaf)) }
                }
            }
        }
        for index in shards[bucket].slots.indices where shards[bucket].slots[index].isPresent {
            found.append((shards[bucket].slots[index].key, leaf(Place(bucket, index))))
        }
        return found.sorted { StateKey($0.key) < StateKey($1.key) }
    }

    /// The leaves of everything there is; from now on the slots have theirs.
    private func allLeaves() -> StateLeaves {
        var all = StateLeaves()
        if let disk, isOnDisk {
            _ = disk.reader.read { database in
                try StateMerge(disk.runs, database).forEach { entry in
                    let hash = entry.hash
                    let key = String(decoding: entry.key, as: UTF8.self)
                    guard entry.value != nil, shards[Int(hash & 255)].find(key, hash) == nil else { return }
                    all.replace(.zero, with: entry.leaf, in: StateLeaves.bucket(of: hash))
                }
            }
        }
        for shard in shards.indices {
            for index in shards[shard].slots.indices where !shards[shard].slots[index].isFree {
                let leaf = leaf(Place(shard, index))
                all.replace(.zero, with: leaf, in: shard)
                shards[shard].slots[index].leaf = leaf
                shards[shard].slots[index].isUndigested = false
            }
        }
        return all
    }
}

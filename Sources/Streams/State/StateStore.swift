import Base

/// A value that a store can keep: encoded canonically, so that equal states have equal digests.
package protocol StateValue: SendableMetatype {
    func encode(into writer: inout ByteWriter)
    init(decoding reader: inout ByteReader) throws(BaseError)
}

/// What the runner needs of a store, whatever its values are.
package protocol AnyStateStore: AnyObject {
    var name: String { get }
    /// Of all keys, also of those that are on the disk only.
    var count: Int { get }
    /// About what its keys and values take in memory, in bytes.
    var residentBytes: Int { get }
    /// Keys in memory, and how many of them no checkpoint has taken as they are.
    var residents: (all: Int, changed: Int) { get }
    /// Whether its digest is kept up from change to change; else it is computed when somebody asks.
    var keepsDigest: Bool { get set }

    /// Whether what changes can be undone until it is settled.
    var keepsUndo: Bool { get set }
    /// What changed since stays.
    func settle()
    /// Everything is as it was when it was settled last.
    func undo()

    /// Begins with what is stored of it.
    /// - Parameter count: of all its keys.
    func attach(_ disk: StateDisk, count: Int)
    /// Lets go of the disk: nobody uses the store any more, whoever may still hold it.
    func detach()
    /// Holds what changed since the last snapshot as it is now, to be taken piece by piece while changes go on.
    func beginSnapshot()
    /// Takes up to so many of the held keys with their encoded values; true when none is left.
    func takeSnapshot(limit: Int, into delta: inout StateDelta) -> Bool
    /// What was taken is on the disk.
    func snapshotStored(_ runs: [StateRun])
    /// Forgets removed keys of which the disk knows, up to so many. Never while a snapshot is under way.
    func forget(_ room: inout Int)
    /// Looks at up to so many keys and lets those go that are on the disk and were not used since it last came by. Never
    /// while a snapshot is under way.
    func evict(_ room: inout Int)
    /// Begins to read what is on the disk for the digest, beside the fold.
    func prepareDigest()
    func digest() -> Digest
    /// Digests of the buckets of which its digest is made.
    func bucketDigests() -> [Digest]
    /// The keys of a bucket in the order of their bytes, each with its leaf.
    func leaves(inBucket bucket: Int) -> [(key: String, leaf: Digest)]
}

/// Where a store finds what is not in memory.
package struct StateDisk {
    let reader: StateReader
    /// The oldest first.
    var runs: [StateRun]
}

/// Keyed state: keys that were used lately in memory, all of them in the runs of the last checkpoint, and an incremental
/// digest. A key is read from the disk when it is used for the first time.
package final class StateStore<Value: StateValue>: AnyStateStore {
    package let name: String
    var disk: StateDisk?
    package var keepsDigest = true
    package var keepsUndo = false
    /// What changed since the store was settled, as it was before.
    private var undone: [(place: Place, value: Value?)] = []

    typealias Slot = StateShard.Slot
    typealias Place = StateShard.Place

    var shards: [StateShard] = Array(repeating: StateShard(), count: 256)
    /// By shard and number of a slot.
    var contents: [[Value?]] = Array(repeating: [], count: 256)
    /// Where keys stand among each other on the disk; by their hash where nothing else is said.
    let placing: (@Sendable (_ key: UnsafeRawBufferPointer) -> UInt64)?
    var total = 0
    /// Bytes and slots in memory.
    var resident = 0
    var slotCount = 0

    /// Slots changed since the newest snapshot began.
    var dirty: [UInt32] = []
    /// Counts snapshots: what changed before the newest one began has the epoch before this.
    var epoch: UInt32 = 1
    /// Slots that the snapshot under way holds, and how far they were taken.
    var held: [UInt32] = []
    var taken = 0
    /// Held slots that changed meanwhile, with what they had when the snapshot began; nil where there was nothing.
    var early: [UInt32: [UInt8]?] = [:]
    /// Slots of removed keys, to be forgotten once the disk knows.
    var gone: [UInt32] = []
    var undigested: [UInt32] = []
    /// Of them, those whose key was let go meanwhile.
    var stale = 0
    var leaves = StateLeaves()
    var leafScan: StateLeafScan?
    /// Whether what is on the disk is in the leaves or in the scan.
    var isDigestPrepared = false
    /// Nothing is on the disk alone, and nothing is let go: somebody goes over all of it.
    var isWhole = false
    /// Reused from key to key.
    var scratch = ByteWriter()
    /// Where the hand of the clock stands.
    var hand = Place(0, 0)

    /// - Parameter placing: keeps the order in which keys are gone through on the disk.
    package init(name: String, placing: (@Sendable (_ key: UnsafeRawBufferPointer) -> UInt64)? = nil) {
        self.placing = placing
        self.name = name
    }

    package var count: Int { total }
    package var residentBytes: Int { resident }
    package var residents: (all: Int, changed: Int) { (slotCount, dirty.count) }

    /// Let go and still listed for the digest: of fewer the list is not written anew.
    private static var staleLimit: Int { 1024 }

    /// What a slot takes beside its value's bytes: itself, its key, and the value's own arrays.
    private static var slotBytes: Int { MemoryLayout<Slot>.stride + MemoryLayout<Value?>.stride + 96 }

    // MARK: Slots

    @inline(__always)
    private func find(_ key: String, _ hash: UInt64) -> Place? {
        let shard = Int(hash & 255)
        guard let index = shards[shard].find(key, hash) else { return nil }
        return Place(shard, index)
    }

    /// A slot of a key that may be on the disk only; nil where it is nowhere.
    private func bring(_ key: String, _ hash: UInt64) -> Place? {
        guard let disk, isOnDisk else { return nil }
        var text = key
        let found = text.withUTF8 { utf8 in
            let raw = UnsafeRawBufferPointer(utf8)
            return disk.reader.find(raw, place: placing?(raw) ?? hash, hash: hash, in: disk.runs)
        }
        guard case .entry(let leaf, let value?) = found else { return nil }
        return admit(key, hash, leaf, value)
    }

    /// Takes a key in as the disk has it.
    func admit(_ key: String, _ hash: UInt64, _ leaf: Digest, _ bytes: [UInt8]) -> Place? {
        do {
            let value = try bytes.withRaw { raw throws(BaseError) in
                var reader = ByteReader(raw)
                return try Value(decoding: &reader)
            }
            return insert(
                Slot(
                    key: key, hash: hash, leaf: leaf, weight: UInt32(clamping: bytes.count), isPresent: true,
                    isStored: true), value)
        } catch {
            disk?.reader.fail(error)
            return nil
        }
    }

    private func insert(_ slot: Slot, _ value: Value?) -> Place {
        resident += Self.slotBytes + Int(slot.weight)
        slotCount += 1
        let shard = Int(slot.hash & 255)
        let index = shards[shard].insert(slot)
        if index == contents[shard].count { contents[shard].append(value) } else { contents[shard][index] = value }
        return Place(shard, index)
    }

    /// Forgets a slot; what it said is on the disk, or nothing.
    func release(_ place: Place) {
        if shards[place.shard].slots[place.index].isUndigested {
            account(place)
            stale += 1
            trimUndigested()
        }
        resident -= Self.slotBytes + Int(shards[place.shard].slots[place.index].weight)
        shards[place.shard].remove(place.index)
        contents[place.shard][place.index] = nil
        slotCount -= 1
    }

    /// The list of what the digest lacks grows with what changes, is let go and comes back; it names each slot once again.
    private func trimUndigested() {
        guard stale > Self.staleLimit, stale > slotCount else { return }
        stale = 0
        undigested.removeAll(keepingCapacity: true)
        for shard in shards.indices {
            for index in shards[shard].slots.indices where shards[shard].slots[index].isUndigested {
                undigested.append(Place(shard, index).packed)
            }
        }
    }

    func weigh(_ place: Place, _ bytes: Int) {
        resident += bytes - Int(shards[place.shard].slots[place.index].weight)
        shards[place.shard].slots[place.index].weight = UInt32(clamping: bytes)
    }

    /// What must be known before a slot changes: that it does, and how a snapshot under way has it.
    @inline(__always)
    private func note(_ place: Place) {
        let (isNew, isHeld, isUndigested) = shards[place.shard].note(place.index, epoch, keepsDigest)
        if isHeld, !held.isEmpty {
            early[place.packed] = .some(contents[place.shard][place.index].map(Self.encoded))
        }
        if isNew { dirty.append(place.packed) }
        if isUndigested { undigested.append(place.packed) }
        if keepsUndo { undone.append((place, contents[place.shard][place.index])) }
    }

    package func settle() { undone.removeAll(keepingCapacity: true) }

    package func undo() {
        for (place, value) in undone.reversed() {
            let isPresent = value != nil
            total += (isPresent ? 1 : 0) - (shards[place.shard].slots[place.index].isPresent ? 1 : 0)
            shards[place.shard].slots[place.index].isPresent = isPresent
            contents[place.shard][place.index] = value
        }
        settle()
    }

    static func encoded(_ value: Value) -> [UInt8] {
        var writer = ByteWriter()
        value.encode(into: &writer)
        return writer.bytes
    }

    // MARK: Use

    package subscript(key: String) -> Value? {
        let hash = StateKey.hash(key)
        guard let place = find(key, hash) ?? bring(key, hash) else { return nil }
        shards[place.shard].slots[place.index].isUsed = true
        return contents[place.shard][place.index]
    }

    /// Whether a key is there, without a copy of its value.
    package func has(_ key: String) -> Bool {
        let hash = StateKey.hash(key)
        guard let place = find(key, hash) ?? bring(key, hash) else { return false }
        return shards[place.shard].slots[place.index].isPresent
    }

    package func set(_ key: String, _ value: Value) {
        change(key, default: value) { $0 = value }
    }

    package func remove(_ key: String) -> Value? {
        let hash = StateKey.hash(key)
        guard let place = find(key, hash) ?? bring(key, hash),
            shards[place.shard].slots[place.index].isPresent
        else { return nil }
        note(place)
        total -= 1
        var old: Value?
        swap(&old, &contents[place.shard][place.index])
        shards[place.shard].slots[place.index].isPresent = false
        return old
    }

    /// Changes a value in place, making it first where there is none.
    package func modify<R>(_ key: String, default make: @autoclosure () -> Value, _ body: (inout Value) throws -> R)
        rethrows -> R
    {
        try change(key, default: make(), body)
    }

    @inline(__always)
    private func change<R>(_ key: String, default make: @autoclosure () -> Value, _ body: (inout Value) throws -> R)
        rethrows -> R
    {
        let hash = StateKey.hash(key)
        let place =
            find(key, hash) ?? bring(key, hash) ?? insert(Slot(key: key, hash: hash), nil)
        // Noted whatever comes of the change: it may have been made in part.
        note(place)
        if !shards[place.shard].slots[place.index].isPresent {
            shards[place.shard].slots[place.index].isPresent = true
            contents[place.shard][place.index] = make()
            total += 1
        }
        // There is a value: it was made above.
        return try body(&contents[place.shard][place.index]!)
    }

    /// Reads in place with the right to change what is derived only (an eviction that a later read would repeat).
    package func inspect<R>(_ key: String, _ body: (inout Value) throws -> R) rethrows -> R? {
        let hash = StateKey.hash(key)
        guard let place = find(key, hash) ?? bring(key, hash) else { return nil }
        shards[place.shard].slots[place.index].isUsed = true
        guard shards[place.shard].slots[place.index].isPresent else { return nil }
        return try body(&contents[place.shard][place.index]!)
    }

    // MARK: All of it

    /// Every value, in no order: for what does not depend on one. From now on all keys stay in memory.
    package var values: some Sequence<Value> {
        bringAll()
        return contents.lazy.flatMap { $0.lazy.compactMap { $0 } }
    }

    /// Keys in the order of their bytes: the only order in which a fold may go over a store. From now on all keys stay in
    /// memory.
    package var sortedKeys: [String] {
        bringAll()
        return shards.flatMap { $0.slots.lazy.filter(\.isPresent).map { StateKey($0.key) } }.sorted().map(\.text)
    }

    /// What could not be read since the state was opened.
    var failure: StreamsError? { disk?.reader.failure }

    /// What is on the disk is not what it must be.
    func fail(_ what: String) { disk?.reader.fail(BaseError("bad-state", what, fault: .world)) }

    /// Whether some of it may be on the disk only.
    var isOnDisk: Bool { !isWhole && disk?.runs.isEmpty == false }

    /// Goes through the keys that the disk has, in the order of their places, and takes them into memory; keys of which memory
    /// says that they are not there any more are left out. False where the disk cannot be read.
    /// - Parameter body: false ends it before the next key.
    func forEachStored(from place: UInt64, _ body: (String) -> Bool) -> Bool {
        guard !isWhole else {
            for key in presentKeys(from: place) where !body(key) { break }
            return true
        }
        guard let disk, !disk.runs.isEmpty else { return true }
        let done: Void? = disk.reader.read { database in
            let merge = try StateMerge(disk.runs, from: place, database)
            while let entry = merge.entry {
                if let value = entry.value {
                    let (key, hash) = (String(decoding: entry.key, as: UTF8.self), entry.hash)
                    if let known = find(key, hash) {
                        if shards[known.shard].slots[known.index].isPresent, !body(key) { return }
                    } else {
                        guard body(key) else { return }
                        _ = admit(key, hash, entry.leaf, [UInt8](value))
                    }
                }
                try merge.advance(past: entry)
            }
        }
        return done != nil
    }

    /// In the order of their places.
    private func presentKeys(from place: UInt64) -> [String] {
        var found: [(place: UInt64, key: String)] = []
        for shard in shards.indices {
            for index in shards[shard].slots.indices where shards[shard].slots[index].isPresent {
                let at = position(Place(shard, index))
                if at >= place { found.append((at, shards[shard].slots[index].key)) }
            }
        }
        return found.sorted { $0.place < $1.place }.map(\.key)
    }

    private func bringAll() {
        guard !isWhole else { return }
        defer { isWhole = true }
        guard let disk, !disk.runs.isEmpty else { return }
        _ = disk.reader.read { database in
            try StateMerge(disk.runs, database).forEach { entry in
                guard let value = entry.value else { return }
                let (key, hash) = (String(decoding: entry.key, as: UTF8.self), entry.hash)
                if find(key, hash) == nil { _ = admit(key, hash, entry.leaf, [UInt8](value)) }
            }
        }
    }
}

/// A single blob, for stages that encode their small state themselves.
package struct StateBlob: StateValue {
    package var bytes: [UInt8]
    package init(_ bytes: [UInt8]) { self.bytes = bytes }
    package func encode(into writer: inout ByteWriter) { writer.append(sized: bytes) }
    package init(decoding reader: inout ByteReader) throws(BaseError) { bytes = try reader.sizedBytes() }
}

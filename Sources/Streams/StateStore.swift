import Base

/// A value that a store can keep: encoded canonically, so that equal states have equal digests.
package protocol StateValue {
    func encode(into writer: inout ByteWriter)
    init(decoding reader: inout ByteReader) throws(BaseError)
}

/// What the runner needs of a store, whatever its values are.
package class AnyStateStore {
    package let name: String
    init(name: String) { self.name = name }

    /// Holds what changed since the last snapshot as it is now, to be taken piece by piece while changes go on.
    package func beginSnapshot() {}
    /// Takes up to so many of the held keys with their encoded values, nil for a removed key; true when none is left.
    package func takeSnapshot(limit: Int, into changes: inout [StateChange]) -> Bool { true }
    package func load(key: String, value: UnsafeRawBufferPointer) throws(BaseError) {}
    package func digest() -> Digest { .zero }
    package var count: Int { 0 }
}

/// One entry of a store as a checkpoint writes it; no value for a removed key.
package struct StateChange: Sendable {
    package let store: String
    package let key: String
    package let value: [UInt8]?
}

/// Keyed state in memory with the set of keys that changed since the last checkpoint and an incremental digest: a
/// bucketed Merkle tree whose leaves are the entries.
package final class StateStore<Value: StateValue>: AnyStateStore {
    package static var bucketCount: Int { 256 }

    /// A value, and whether the lists of what changed name its key already: a value that changes often is noted once.
    private struct Slot {
        var value: Value
        /// The epoch in which the list of changed keys last took it in; 0 once a snapshot has taken it.
        var dirtyEpoch: UInt32 = 0
        var isUndigested = false
    }

    /// The epoch of a slot that was made a moment ago.
    private static var fresh: UInt32 { .max }

    private var slots: [StateKey: Slot] = [:]
    /// Keys changed since the newest snapshot began, each once, and since the last digest, where a key that was removed and
    /// made again may stand twice.
    private var dirty: [String] = []
    /// Counts snapshots: what changed before the newest one began has the epoch before this.
    private var epoch: UInt32 = 1
    /// Keys that the snapshot under way holds, and how far they were taken.
    private var held: [String] = []
    private var taken = 0
    /// Held keys that changed meanwhile, with what they had when the snapshot began; nil where there was nothing.
    private var early: [StateKey: [UInt8]?] = [:]
    /// Removed since the newest snapshot began: they stand in the list of changed keys, once, also when they are made again.
    private var removed: Set<StateKey> = []
    private var undigested: [String] = []
    private var leaves: [[StateKey: Digest]] = Array(repeating: [:], count: 256)
    private var buckets: [Digest] = Array(repeating: .zero, count: 256)

    override package init(name: String) { super.init(name: name) }

    override package var count: Int { slots.count }

    package subscript(key: String) -> Value? { slots[StateKey(key)]?.value }

    /// Whether a key is there, without a copy of its value.
    package func has(_ key: String) -> Bool { slots.index(forKey: StateKey(key)) != nil }

    /// Every value, in no order: for what does not depend on one.
    package var values: some Sequence<Value> { slots.values.lazy.map(\.value) }

    package func set(_ key: String, _ value: Value) {
        change(key, default: value) { $0 = value }
    }

    package func remove(_ key: String) -> Value? {
        guard let old = slots.removeValue(forKey: StateKey(key)) else { return nil }
        if !held.isEmpty, old.dirtyEpoch == epoch - 1 { early[StateKey(key)] = .some(encoded(old.value)) }
        if old.dirtyEpoch != epoch { dirty.append(key) }
        removed.insert(StateKey(key))
        if !old.isUndigested { undigested.append(key) }
        return old.value
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
        var isNoted = (dirty: true, undigested: true)
        // Noted whatever comes of the change: it may have been made in part.
        defer {
            if !isNoted.dirty { dirty.append(key) }
            if !isNoted.undigested { undigested.append(key) }
        }
        return try { slot in
            isNoted = (slot.dirtyEpoch == epoch, slot.isUndigested)
            if slot.dirtyEpoch == Self.fresh, !removed.isEmpty { isNoted.dirty = removed.contains(StateKey(key)) }
            if !held.isEmpty { keep(key, slot) }
            slot.dirtyEpoch = epoch
            slot.isUndigested = true
            return try body(&slot.value)
        }(&slots[StateKey(key), default: Slot(value: make(), dirtyEpoch: Self.fresh)])
    }

    /// What a held key had when the snapshot began, before it changes for the first time since.
    private func keep(_ key: String, _ slot: Slot) {
        if slot.dirtyEpoch == epoch - 1 {
            early[StateKey(key)] = .some(encoded(slot.value))
        } else if slot.dirtyEpoch == Self.fresh, early[StateKey(key)] == nil {
            early[StateKey(key)] = .some(nil)
        }
    }

    /// Reads in place with the right to change what is derived only (an eviction that a later read would repeat).
    package func inspect<R>(_ key: String, _ body: (inout Value) throws -> R) rethrows -> R? {
        guard let index = slots.index(forKey: StateKey(key)) else { return nil }
        return try body(&slots.values[index].value)
    }

    /// Keys in the order of their bytes: the only order in which a fold may go over a store.
    package var sortedKeys: [String] { slots.keys.map(\.text).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) } }

    private func encoded(_ value: Value) -> [UInt8] {
        var writer = ByteWriter()
        value.encode(into: &writer)
        return writer.bytes
    }

    override package func beginSnapshot() {
        precondition(held.isEmpty, "one snapshot at a time")
        guard !dirty.isEmpty else { return }
        held = dirty
        taken = 0
        dirty = []
        removed.removeAll(keepingCapacity: true)
        epoch += 1
    }

    override package func takeSnapshot(limit: Int, into changes: inout [StateChange]) -> Bool {
        let end = min(held.count, limit > held.count - taken ? held.count : taken + limit)
        while taken < end {
            let key = held[taken]
            taken += 1
            if let before = early[StateKey(key)] {
                changes.append(StateChange(store: name, key: key, value: before))
            } else if let index = slots.index(forKey: StateKey(key)) {
                slots.values[index].dirtyEpoch = 0
                changes.append(StateChange(store: name, key: key, value: encoded(slots.values[index].value)))
            } else {
                changes.append(StateChange(store: name, key: key, value: nil))
            }
        }
        guard taken == held.count else { return false }
        held = []
        taken = 0
        early = [:]
        return true
    }

    /// Everything that changed since the last snapshot, at once and in key order; for tests.
    package func takeChanges() -> [StateChange] {
        beginSnapshot()
        var changes: [StateChange] = []
        _ = takeSnapshot(limit: .max - 1, into: &changes)
        return changes.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
    }

    override package func load(key: String, value: UnsafeRawBufferPointer) throws(BaseError) {
        var reader = ByteReader(value)
        slots[StateKey(key)] = Slot(value: try Value(decoding: &reader), isUndigested: true)
        undigested.append(key)
    }

    override package func digest() -> Digest {
        var changed: Set<Int> = []
        for key in undigested {
            var name = key
            let bucket = Int(name.withUTF8 { stableHash(UnsafeRawBufferPointer($0), seed: 1) } & 255)
            changed.insert(bucket)
            if let index = slots.index(forKey: StateKey(key)) {
                guard slots.values[index].isUndigested else { continue }
                slots.values[index].isUndigested = false
                var writer = ByteWriter()
                writer.append(sized: key)
                slots.values[index].value.encode(into: &writer)
                leaves[bucket][StateKey(key)] = Digest.of(writer.bytes)
            } else {
                leaves[bucket][StateKey(key)] = nil
            }
        }
        undigested.removeAll(keepingCapacity: true)
        for bucket in changed {
            var stream = DigestStream()
            for digest in leaves[bucket].values.sorted() { stream.update(digest.bytes) }
            buckets[bucket] = leaves[bucket].isEmpty ? .zero : stream.finish()
        }
        var stream = DigestStream()
        stream.update(name)
        for bucket in buckets { stream.update(bucket.bytes) }
        return stream.finish()
    }
}

/// A single blob, for stages that encode their small state themselves.
package struct StateBlob: StateValue {
    package var bytes: [UInt8]
    package init(_ bytes: [UInt8]) { self.bytes = bytes }
    package func encode(into writer: inout ByteWriter) { writer.append(sized: bytes) }
    package init(decoding reader: inout ByteReader) throws(BaseError) { bytes = try reader.sizedBytes() }
}

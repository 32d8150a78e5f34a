import Base

/// A 256th of a store's keys: a table with open addressing over slots that never move while they are used. So small that
/// its growth stops nobody. The values stand apart, by the numbers of slots: what is done with keys alone knows no type.
struct StateShard {
    struct Slot {
        var key: String
        var hash: UInt64
        /// What the store's digest holds of the key; `.zero` for nothing.
        var leaf = Digest.zero
        /// The epoch in which it changed last and a checkpoint has not taken it; 0 where it is as it was taken.
        var dirtyEpoch: UInt32 = 0
        /// Bytes of the value when it was last encoded.
        var weight: UInt32 = 0
        var isUndigested = false
        /// There is a value. Else the key was removed, and the disk may not know yet.
        var isPresent = false
        /// The runs hold a value of it.
        var isStored = false
        /// Touched since the hand of the clock came by.
        var isUsed = true
        var isFree = false
    }

    /// A slot's shard and its number there.
    struct Place {
        let shard: Int
        let index: Int

        var packed: UInt32 { UInt32(shard) << 24 | UInt32(index) }

        init(_ shard: Int, _ index: Int) {
            self.shard = shard
            self.index = index
        }

        init(packed: UInt32) { self.init(Int(packed >> 24), Int(packed & 0xFF_FFFF)) }
    }

    var slots: [Slot] = []
    private var free: [UInt32] = []
    /// Number of a slot and one; 0 for nothing.
    private var table: [UInt32] = []
    private var used = 0

    private static func start(_ hash: UInt64, _ mask: Int) -> Int { Int(truncatingIfNeeded: hash >> 8) & mask }

    @inline(__always)
    func find(_ key: String, _ hash: UInt64) -> Int? {
        let mask = table.count - 1
        guard mask >= 0 else { return nil }
        var at = Self.start(hash, mask)
        while table[at] != 0 {
            let index = Int(table[at]) - 1
            if slots[index].hash == hash, StateKey(slots[index].key) == StateKey(key) { return index }
            at = (at + 1) & mask
        }
        return nil
    }

    /// - Parameter slot: of a key that is not in the table.
    mutating func insert(_ slot: Slot) -> Int {
        if (used + 1) * 4 > table.count * 3 { grow() }
        let index: Int
        if let reused = free.popLast() {
            index = Int(reused)
            slots[index] = slot
        } else {
            index = slots.count
            slots.append(slot)
        }
        used += 1
        link(index, slot.hash)
        return index
    }

    private mutating func link(_ index: Int, _ hash: UInt64) {
        let mask = table.count - 1
        var at = Self.start(hash, mask)
        while table[at] != 0 { at = (at + 1) & mask }
        table[at] = UInt32(index + 1)
    }

    private mutating func grow() {
        table = Array(repeating: 0, count: max(8, table.count * 2))
        for index in slots.indices where !slots[index].isFree { link(index, slots[index].hash) }
    }

    /// Marks a slot that is about to change: whether no list of what changed names it, whether a snapshot under way may hold
    /// it as it is, and whether no list of what the digest lacks names it.
    @inline(__always)
    mutating func note(_ index: Int, _ epoch: UInt32, _ keepsDigest: Bool) -> (
        isNew: Bool, isHeld: Bool, isUndigested: Bool
    ) {
        let before = slots[index].dirtyEpoch
        let isUndigested = keepsDigest && !slots[index].isUndigested
        slots[index].dirtyEpoch = epoch
        if isUndigested { slots[index].isUndigested = true }
        slots[index].isUsed = true
        return (before != epoch, before != epoch && before != 0, isUndigested)
    }

    /// Whether a slot is of a removed key of which the disk knows.
    func isGone(_ index: Int) -> Bool {
        !slots[index].isFree && !slots[index].isPresent && slots[index].dirtyEpoch == 0
    }

    /// Whether a slot may be let go: it was not used since this was asked last, and is on the disk.
    mutating func isIdle(_ index: Int) -> Bool {
        defer { slots[index].isUsed = false }
        return !slots[index].isFree && !slots[index].isUsed && slots[index].dirtyEpoch == 0
    }

    /// Forgets a slot. What comes behind it in the table moves up, so that nothing is left to be stepped over.
    mutating func remove(_ index: Int) {
        let mask = table.count - 1
        var at = Self.start(slots[index].hash, mask)
        while table[at] != UInt32(index + 1) { at = (at + 1) & mask }
        var next = (at + 1) & mask
        while table[next] != 0 {
            let home = Self.start(slots[Int(table[next]) - 1].hash, mask)
            if (next - home) & mask >= (next - at) & mask {
                table[at] = table[next]
                at = next
            }
            next = (next + 1) & mask
        }
        table[at] = 0
        slots[index].key = ""
        slots[index].isPresent = false
        slots[index].isFree = true
        free.append(UInt32(index))
        used -= 1
    }
}

import Base
import Crypto
import EventLog

package enum PrivacyModule {}
/// Errors of sealing and erasing. Codes: `unknown-subject`, `too-many-subjects`, `rot`, `key-store-failed`.
package typealias PrivacyError = Failure<PrivacyModule>

/// Names a key without saying whose it is: 16 random bytes.
package struct KeyID: Hashable, Sendable, CustomStringConvertible {
    let high: UInt64
    let low: UInt64

    static func random() -> KeyID { KeyID(high: .random(in: 0 ... .max), low: .random(in: 0 ... .max)) }

    init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Reads 32 hexadecimal digits.
    package init?(_ text: String) {
        guard text.utf8.count == 32, let bytes = [UInt8](hex: text) else { return nil }
        func word(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
        self.init(high: word(bytes[0..<8]), low: word(bytes[8..<16]))
    }

    var bytes: [UInt8] {
        [high, low].flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> (56 - 8 * $0)) } }
    }

    package var description: String { bytes.hex }
}

/// A key and its name.
package struct SubjectKey: Sendable {
    package let id: KeyID
    package let secret: SymmetricKey
}

/// What has become of a key.
package enum KeyState: Sendable {
    case live(SymmetricKey)
    case erased(Instant)
    /// This store never had it, or lost it to damage.
    case unknown
}

/// The keys under which people's data stands in the log: one per person, in one file apart from the log. The file says
/// nothing of who they are (only a keyed digest of the name), and destroying a key overwrites it where it stands. Layout:
/// docs/formats/keys.md.
package final class KeyStore: Sendable {
    package static let fileName = "subject.keys"

    private struct Keys {
        var file: any LogFile
        let secret: SymmetricKey
        var next: UInt32
        var slotOfTag: [Base.Digest: UInt32] = [:]
        var slotOfKey: [KeyID: UInt32] = [:]
        var live = 0
        var erased = 0
        var damaged = 0
        /// A write that failed leaves it open what is on the disk; nothing is given out until the next start.
        var failure: PrivacyError?
        /// Keeps others away from the file; nil once the store is closed.
        var lock: (any Sendable)?
    }

    /// The store's own id: copies of it have the same.
    package let identity: String
    private let keys: Monitor<Keys>
    private let volume: any LogVolume

    /// Opens the store, or makes one where there is none.
    package init(_ volume: any LogVolume) throws {
        try volume.makeDirectory("")
        let lock = try volume.lock()
        self.volume = volume
        if !(try volume.list()).contains(KeyStore.fileName) {
            try volume.replace(KeyStore.fileName, with: KeySlot.newHeader(), durable: true)
        }
        let file = try volume.open(KeyStore.fileName, .write)
        let header = try file.read(at: 0, count: KeySlot.headerSize)
        guard let secret = KeySlot.secret(header) else {
            throw PrivacyError(
                "rot", "the header of \(file.path) is damaged, so no key can be found; put its backup back",
                fault: .world)
        }
        identity = KeySlot.identity(header)
        var found = Keys(file: file, secret: SymmetricKey(data: secret), next: 0)
        try KeyStore.load(&found)
        found.lock = lock
        keys = Monitor(found)
    }

    /// Gives no key any more and lets others open the store.
    package func close() {
        keys.withLock { keys in
            keys.failure = keys.failure ?? PrivacyError("closed", "the key store is closed", fault: .world)
            keys.lock = nil
        }
    }

    /// Slots read at once.
    private static let pageSlots = 8192

    private static func load(_ keys: inout Keys) throws {
        let total = max(0, Int(keys.file.size) - KeySlot.headerSize) / KeySlot.size
        for first in stride(from: 0, to: total, by: pageSlots) {
            let count = min(pageSlots, total - first)
            let bytes = try keys.file.read(at: KeySlot.offset(UInt32(first)), count: count * KeySlot.size)
            for index in 0..<bytes.count / KeySlot.size {
                let slot = bytes[index * KeySlot.size..<(index + 1) * KeySlot.size]
                switch KeySlot.decode(Array(slot)) {
                case .free: continue
                case .damaged:
                    // Never written over: it may be the key of the newest person, gone bad.
                    keys.damaged += 1
                    keys.next = UInt32(first + index + 1)
                case .slot(let slot):
                    keys.next = UInt32(first + index + 1)
                    note(slot, at: UInt32(first + index), in: &keys)
                }
            }
        }
    }

    private static func note(_ slot: KeySlot, at number: UInt32, in keys: inout Keys) {
        keys.slotOfKey[slot.id] = number
        if slot.erased == nil {
            keys.slotOfTag[slot.tag] = number
            keys.live += 1
        } else {
            keys.erased += 1
        }
    }

    /// Whether a volume holds a store at all.
    package static func isThere(_ volume: any LogVolume) -> Bool {
        (try? volume.list())?.contains(fileName) == true
    }

    /// Why no key is given out or destroyed any more, until the next start; nil while all is well.
    package var failure: PrivacyError? { keys.withLock { $0.failure } }

    /// One past the last slot in use. It never falls, so a store that has fewer than it once had is an older copy.
    package var slots: Int { keys.withLock { Int($0.next) } }

    /// How many keys there are, how many were destroyed, and how many cannot be read any more.
    package var counts: (live: Int, erased: Int, damaged: Int) {
        keys.withLock { ($0.live, $0.erased, $0.damaged) }
    }

    /// A digest that only this store can make, for naming what must not be guessed from its name.
    package func fingerprint(_ bytes: [UInt8]) -> Base.Digest { keys.withLock { KeyStore.tag(bytes, $0.secret) } }

    private static func tag(_ bytes: [UInt8], _ secret: SymmetricKey) -> Base.Digest {
        Base.Digest(Array(HMAC<SHA256>.authenticationCode(for: bytes, using: secret))) ?? .zero
    }

    package func has(_ subject: String) -> Bool {
        keys.withLock { $0.slotOfTag[KeyStore.tag([UInt8](subject.utf8), $0.secret)] != nil }
    }

    /// The key of a person; nil where there is none, or none any more.
    package func find(_ subject: String) throws -> KeyID? {
        try keys.withLock { keys in
            let tag = KeyStore.tag([UInt8](subject.utf8), keys.secret)
            return try keys.slotOfTag[tag].map { try KeyStore.read($0, keys).id }
        }
    }

    /// The key of every person named, made where there is none. What was made is on the disk when this returns, so no
    /// event stands in the log whose key a crash could take.
    package func keys(of subjects: [String], at now: Instant) throws -> [SubjectKey] {
        try keys.withLock { keys in
            if let failure = keys.failure { throw failure }
            var result: [SubjectKey] = []
            var fresh: [(slot: KeySlot, key: SubjectKey)] = []
            var freshOf: [Base.Digest: Int] = [:]
            for subject in subjects {
                let tag = KeyStore.tag([UInt8](subject.utf8), keys.secret)
                if let number = keys.slotOfTag[tag] {
                    let slot = try KeyStore.read(number, keys)
                    result.append(SubjectKey(id: slot.id, secret: SymmetricKey(data: slot.key)))
                } else if let index = freshOf[tag] {
                    result.append(fresh[index].key)
                } else {
                    let slot = KeySlot(
                        id: .random(), tag: tag, key: SymmetricKey(size: .bits256).withUnsafeBytes { Array($0) },
                        created: now)
                    freshOf[tag] = fresh.count
                    fresh.append((slot, SubjectKey(id: slot.id, secret: SymmetricKey(data: slot.key))))
                    result.append(fresh[fresh.count - 1].key)
                }
            }
            try KeyStore.append(fresh.map(\.slot), to: &keys)
            return result
        }
    }

    /// Slots beyond those of people, for erasures of keys that this copy of a store never had.
    private static let erasureReserve = Limits.subjects / 10

    private static func append(_ slots: [KeySlot], to keys: inout Keys, upTo limit: Int = Limits.subjects) throws {
        guard !slots.isEmpty else { return }
        guard Int(keys.next) + slots.count <= limit else {
            throw PrivacyError(
                "too-many-subjects", "a key store holds the keys of \(Limits.subjects) people", fault: .world)
        }
        try write(slots.flatMap(\.encoded), at: keys.next, in: &keys)
        for slot in slots {
            note(slot, at: keys.next, in: &keys)
            keys.next += 1
        }
    }

    private static func write(_ bytes: [UInt8], at slot: UInt32, in keys: inout Keys) throws {
        do {
            try keys.file.write(bytes, at: KeySlot.offset(slot))
            try keys.file.sync()
        } catch {
            let failure = PrivacyError(
                "key-store-failed", "\(keys.file.path) could not be written; start the node again", cause: error,
                fault: .world)
            keys.failure = failure
            throw failure
        }
    }

    private static func read(_ number: UInt32, _ keys: Keys) throws -> KeySlot {
        let bytes = try keys.file.read(at: KeySlot.offset(number), count: KeySlot.size)
        guard case .slot(let slot) = KeySlot.decode(bytes) else {
            throw PrivacyError(
                "rot", "slot \(number) of \(keys.file.path) cannot be read; put its backup back", fault: .world)
        }
        return slot
    }

    /// The key of that name, or what became of it.
    package func state(of id: KeyID) throws -> KeyState {
        try keys.withLock { keys in
            guard let number = keys.slotOfKey[id] else { return .unknown }
            let slot: KeySlot
            do {
                slot = try KeyStore.read(number, keys)
            } catch let error as PrivacyError where error.code == "rot" {
                return .unknown
            }
            if let erased = slot.erased { return .erased(erased) }
            return .live(SymmetricKey(data: slot.key))
        }
    }

    /// Overwrites a key where it stands; when this returns, it is gone from the disk. A key that this store never had is
    /// noted as erased all the same, so that an old copy of the store brings nothing back.
    /// - Parameter tag: the person's, where it is known: in a copy of the store that never had this key, an older one of
    ///   theirs goes.
    package func destroy(_ id: KeyID, tag: Base.Digest? = nil, at moment: Instant) throws {
        try keys.withLock { keys in
            if let failure = keys.failure { throw failure }
            let known = keys.slotOfKey[id].flatMap { try? KeyStore.read($0, keys) }
            // What was done here once is done: the person may have come back since.
            guard known?.erased == nil else { return }
            // A store that never had this key is another copy of the one that had it, and may hold an older key of theirs.
            if keys.slotOfKey[id] == nil, let tag, let number = keys.slotOfTag[tag],
                case let other = try KeyStore.read(number, keys), other.created <= moment
            {
                try KeyStore.write(KeySlot(erased: other.id, at: moment).encoded, at: number, in: &keys)
                keys.slotOfTag[tag] = nil
                keys.live -= 1
                keys.erased += 1
            }
            let gone = KeySlot(erased: id, at: moment)
            guard let number = keys.slotOfKey[id] else {
                return try KeyStore.append([gone], to: &keys, upTo: Limits.subjects + KeyStore.erasureReserve)
            }
            try KeyStore.write(gone.encoded, at: number, in: &keys)
            let tag = known?.tag ?? keys.slotOfTag.first { $0.value == number }?.key
            if let tag { keys.slotOfTag[tag] = nil }
            keys.live -= 1
            keys.erased += 1
        }
    }
}

import Base
import Foundation

/// A store's key: equal when its bytes are. Swift's own texts are equal when they look alike (canonical equivalence), and two
/// keys that differ in the log must not be one in the state.
struct StateKey: Hashable, Comparable, Sendable {
    let text: String

    /// By bytes.
    static func < (left: StateKey, right: StateKey) -> Bool {
        left.text.utf8.lexicographicallyPrecedes(right.text.utf8)
    }

    init(_ text: String) { self.text = text }

    static func == (left: StateKey, right: StateKey) -> Bool {
        let same = left.text.utf8.withContiguousStorageIfAvailable { left in
            right.text.utf8.withContiguousStorageIfAvailable { right in
                guard left.count == right.count, let first = left.baseAddress, let second = right.baseAddress else {
                    return left.count == right.count
                }
                return memcmp(first, second, left.count) == 0
            }
        }
        return (same ?? nil) ?? left.text.utf8.elementsEqual(right.text.utf8)
    }

    func hash(into hasher: inout Hasher) {
        let isDone = text.utf8.withContiguousStorageIfAvailable { bytes -> Bool in
            hasher.combine(bytes: UnsafeRawBufferPointer(bytes))
            return true
        }
        if isDone == nil { Array(text.utf8).withUnsafeBytes { hasher.combine(bytes: $0) } }
    }
}

extension StateKey {
    /// Decides a key's shard, its bucket in the digest, its place among the others and its bits in a filter.
    static func hash(_ key: UnsafeRawBufferPointer) -> UInt64 { stableHash(key, seed: 1) }

    @inline(__always)
    static func hash(_ key: String) -> UInt64 {
        var key = key
        return key.withUTF8 { stableHash(UnsafeRawBufferPointer($0), seed: 1) }
    }

    /// By bytes, a prefix first; negative where the left one comes first.
    static func order(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Int {
        if let one = left.baseAddress, let other = right.baseAddress {
            let found = Int(memcmp(one, other, min(left.count, right.count)))
            if found != 0 { return found }
        }
        return left.count - right.count
    }
}

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

    /// Keys changed since the last call, with their encoded values; nil for a removed key. In key order.
    package func takeChanges() -> [(key: String, value: [UInt8]?)] { [] }
    package func load(key: String, value: UnsafeRawBufferPointer) throws(BaseError) {}
    package func digest() -> Digest { .zero }
    package var count: Int { 0 }
}

/// Keyed state in memory with the set of keys that changed since the last checkpoint and an incremental digest: a
/// bucketed Merkle tree whose leaves are the entries.
package final class StateStore<Value: StateValue>: AnyStateStore {
    package static var bucketCount: Int { 256 }

    package private(set) var values: [String: Value] = [:]
    private var dirty: Set<String> = []
    private var undigested: Set<String> = []
    private var leaves: [[String: Digest]] = Array(repeating: [:], count: 256)
    private var buckets: [Digest] = Array(repeating: .zero, count: 256)

    override package init(name: String) { super.init(name: name) }

    override package var count: Int { values.count }

    package subscript(key: String) -> Value? { values[key] }

    private func touch(_ key: String) {
        dirty.insert(key)
        undigested.insert(key)
    }

    package func set(_ key: String, _ value: Value) {
        values[key] = value
        touch(key)
    }

    package func remove(_ key: String) -> Value? {
        guard let old = values.removeValue(forKey: key) else { return nil }
        touch(key)
        return old
    }

    /// Changes a value in place, making it first where there is none.
    package func modify<R>(_ key: String, default make: @autoclosure () -> Value, _ body: (inout Value) throws -> R)
        rethrows -> R
    {
        touch(key)
        return try body(&values[key, default: make()])
    }

    /// Reads in place with the right to change what is derived only (an eviction that a later read would repeat).
    package func inspect<R>(_ key: String, _ body: (inout Value) throws -> R) rethrows -> R? {
        guard let index = values.index(forKey: key) else { return nil }
        return try body(&values.values[index])
    }

    /// Keys in the order of their bytes: the only order in which a fold may go over a store.
    package var sortedKeys: [String] { values.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) } }

    private func encoded(_ value: Value) -> [UInt8] {
        var writer = ByteWriter()
        value.encode(into: &writer)
        return writer.bytes
    }

    override package func takeChanges() -> [(key: String, value: [UInt8]?)] {
        let keys = dirty.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        dirty.removeAll(keepingCapacity: true)
        return keys.map { key in (key, values[key].map { encoded($0) }) }
    }

    override package func load(key: String, value: UnsafeRawBufferPointer) throws(BaseError) {
        var reader = ByteReader(value)
        values[key] = try Value(decoding: &reader)
        undigested.insert(key)
    }

    override package func digest() -> Digest {
        var changed: Set<Int> = []
        for key in undigested {
            var name = key
            let bucket = Int(name.withUTF8 { stableHash(UnsafeRawBufferPointer($0), seed: 1) } & 255)
            changed.insert(bucket)
            if let value = values[key] {
                var writer = ByteWriter()
                writer.append(sized: key)
                value.encode(into: &writer)
                leaves[bucket][key] = Digest.of(writer.bytes)
            } else {
                leaves[bucket][key] = nil
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

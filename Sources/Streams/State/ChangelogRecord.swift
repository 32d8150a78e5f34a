import Base
import EventLog
import RecordFormat

/// One record of a state's changelog, the topic from which another node takes a task's state over. Its key, which compaction
/// goes by, is: the first 8 bytes of the topology's identity, so that what another topology of the name wrote is not mixed in;
/// the store's name and a zero byte; the key's place in the order of the store (u64, big-endian); the key. Its data are the
/// encoded value, none where the key was removed. The record that ends a checkpoint has the identity alone as its key.
enum ChangelogRecord {
    static let changed = "state.changed"
    static let committed = "state.committed"
    private static let identityBytes = 8
    private static let placeBytes = 8

    static func prefix(_ identity: Digest?) -> [UInt8] {
        Array((identity ?? .zero).bytes.prefix(identityBytes))
    }

    static func key(_ prefix: [UInt8], store: String, _ entry: StateEntry) -> [UInt8] {
        var out = ByteWriter(capacity: prefix.count + store.utf8.count + 1 + placeBytes + entry.key.count)
        out.append(prefix)
        out.append([UInt8](store.utf8))
        out.append(UInt8(0))
        out.append(big: entry.place)
        out.append(entry.key)
        return out.bytes
    }

    /// What a key says; nil for one that no changelog of ours has.
    static func parse(_ key: [UInt8]) -> (store: String, place: UInt64, key: String)? {
        guard key.count > identityBytes, let zero = key[identityBytes...].firstIndex(of: 0),
            key.count - zero - 1 >= placeBytes
        else { return nil }
        var place: UInt64 = 0
        for byte in key[zero + 1..<zero + 1 + placeBytes] { place = place << 8 | UInt64(byte) }
        return (
            String(decoding: key[identityBytes..<zero], as: UTF8.self), place,
            String(decoding: key[(zero + 1 + placeBytes)...], as: UTF8.self)
        )
    }

    /// The end of a checkpoint: how far the inputs were folded, and what else there is to know of the state.
    static func end(inputs: [StateDatabase.InputPosition], meta: [String: String]) -> [UInt8] {
        JSON.object([
            "inputs": .array(
                inputs.map {
                    .array([
                        .string($0.partition.topic), .int(Int64($0.partition.partition)), .int($0.next),
                        .int(Int64($0.source)), .int($0.through),
                    ])
                }),
            "meta": .object(meta.mapValues { .string($0) }),
        ]).canonical
    }

    static func parseEnd(_ data: [UInt8]) -> (inputs: [StateDatabase.InputPosition], meta: [String: String])? {
        guard let json = try? JSON(parsing: data), let list = json["inputs"]?.array, let meta = json["meta"]?.object
        else { return nil }
        var inputs: [StateDatabase.InputPosition] = []
        for item in list {
            guard let item = item.array, item.count == 5, let topic = item[0].string, let partition = item[1].int,
                let next = item[2].int, let source = item[3].int, (0...3).contains(source), let through = item[4].int
            else { return nil }
            inputs.append(
                StateDatabase.InputPosition(
                    partition: TopicPartition(topic, Int(partition)), next: next, source: Int(source),
                    through: through))
        }
        return (inputs, meta.compactMapValues(\.string))
    }
}

import Base

/// Values of one side of a join that may yet find a partner, oldest first.
struct JoinBuffer<Value: StreamValue>: StateValue {
    struct Entry {
        let time: Int64
        let value: Value
        var isMatched: Bool
    }

    var entries: [Entry] = []

    init() {}

    func encode(into writer: inout ByteWriter) {
        writer.append(little: UInt32(entries.count))
        for entry in entries {
            writer.append(little: entry.time)
            writer.append(UInt8(entry.isMatched ? 1 : 0))
            Held(entry.value).encode(into: &writer)
        }
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        for _ in 0..<(try reader.little(UInt32.self)) {
            let time: Int64 = try reader.little()
            let isMatched = try reader.byte() == 1
            entries.append(Entry(time: time, value: try Held(decoding: &reader).value, isMatched: isMatched))
        }
    }
}

/// A join of two streams by key and closeness in time. Values come in the order of their times, so each looks for partners
/// among those that came before it, and is kept as long as one may come that still reaches it.
struct StreamJoin<Left: StreamValue, Right: StreamValue> {
    let made: EventStream<Joined<Left, Right>>

    init(
        _ left: KeyedStream<Left>, _ right: KeyedStream<Right>, before: Int64, after: Int64, _ name: String,
        keepsUnmatched: Bool
    ) {
        let builder = left.builder
        let node = builder.node(
            .join, name, parents: [left.stream.node, right.stream.node],
            settings: ["\(before) ms before to \(after) ms after"] + (keepsUnmatched ? ["keeps unmatched"] : []))
        let lefts: StateStore<JoinBuffer<Left>> = builder.store(node)
        let other = builder.node(.join, "\(name) (other side)", parents: [right.stream.node])
        let rights: StateStore<JoinBuffer<Right>> = builder.store(other)
        let made = EventStream<Joined<Left, Right>>(builder, node)
        self.made = made
        left.stream.receiveOwn { record, flow in
            let time = record.time.milliseconds
            let partners =
                rights[record.key]?.entries.filter { $0.time >= time &- before && $0.time <= time &+ after } ?? []
            // A partner may still come behind it; one that is to be kept unmatched waits for that as well.
            if after >= 0 {
                lefts.modify(record.key, default: JoinBuffer()) {
                    $0.entries.append(.init(time: time, value: record.value, isMatched: !partners.isEmpty))
                }
                flow.setTimer(node, at: record.time + after, key: record.key)
            }
            for partner in partners { try made.outlet.send(record.with(Joined(record.value, partner.value)), flow) }
            if partners.isEmpty, keepsUnmatched, after < 0 {
                try made.outlet.send(record.with(Joined(record.value, nil)), flow)
            }
        }
        right.stream.receiveOwn { record, flow in
            let time = record.time.milliseconds
            var partners: [Left] = []
            if lefts.has(record.key) {
                lefts.modify(record.key, default: JoinBuffer()) { buffer in
                    for index in buffer.entries.indices
                    where time >= buffer.entries[index].time &- before && time <= buffer.entries[index].time &+ after {
                        buffer.entries[index].isMatched = true
                        partners.append(buffer.entries[index].value)
                    }
                }
            }
            if before >= 0 {
                rights.modify(record.key, default: JoinBuffer()) {
                    $0.entries.append(.init(time: time, value: record.value, isMatched: false))
                }
                flow.setTimer(other, at: record.time + before, key: record.key)
            }
            for partner in partners { try made.outlet.send(record.with(Joined(partner, record.value)), flow) }
        }
        // Fires after every event with a time up to its own: nothing that comes now reaches what is that old.
        builder.timers[node] = { key, at, flow in
            let alone = Self.expire(lefts, key, through: at.milliseconds &- after)
            guard keepsUnmatched else { return }
            for entry in alone where !entry.isMatched {
                try made.outlet.send(StreamRecord(key: key, value: Joined(entry.value, nil), time: at), flow)
            }
        }
        builder.timers[other] = { key, at, flow in _ = Self.expire(rights, key, through: at.milliseconds &- before) }
    }

    private static func expire<Value>(
        _ store: StateStore<JoinBuffer<Value>>, _ key: String, through time: Int64
    ) -> [JoinBuffer<Value>.Entry] {
        guard let buffer = store[key] else { return [] }
        let gone = buffer.entries.prefix { $0.time <= time }
        if gone.count == buffer.entries.count {
            _ = store.remove(key)
        } else if !gone.isEmpty {
            store.modify(key, default: JoinBuffer()) { $0.entries.removeFirst(gone.count) }
        }
        return Array(gone)
    }
}

import Base

/// The newest value of each key, and a stream of its changes.
public final class EventTable<Value: StreamValue> {
    /// A value and its event time.
    struct Entry: StateValue {
        let value: Value
        let time: Instant

        init(_ value: Value, _ time: Instant) {
            self.value = value
            self.time = time
        }

        func encode(into writer: inout ByteWriter) {
            writer.append(little: time.milliseconds)
            Held(value).encode(into: &writer)
        }

        init(decoding reader: inout ByteReader) throws(BaseError) {
            time = Instant(milliseconds: try reader.little())
            value = try Held<Value>(decoding: &reader).value
        }
    }

    let builder: StreamBuilder
    let node: Int
    let store: StateStore<Entry>
    /// Sees the new value, or nil for a key that was taken away, and the old one.
    private var receivers: [(_ key: String, _ new: Value?, _ old: Value?, StreamFlow) throws -> Void] = []

    init(
        _ builder: StreamBuilder, _ name: String, parents: [Int], _ kind: StreamNode.Kind = .table,
        settings: [String] = [], mayThrow: Bool = false
    ) {
        self.builder = builder
        node = builder.node(kind, name, parents: parents, settings: settings, mayThrow: mayThrow)
        store = builder.store(node)
    }

    func receive(_ body: @escaping (String, Value?, Value?, StreamFlow) throws -> Void) { receivers.append(body) }

    func put(_ record: StreamRecord<Value>, _ old: Value?, _ flow: StreamFlow) throws {
        store.set(record.key, Entry(record.value, record.time))
        for receiver in receivers { try receiver(record.key, record.value, old, flow) }
    }

    func remove(_ key: String, _ flow: StreamFlow) throws {
        guard let old = store.remove(key) else { return }
        for receiver in receivers { try receiver(key, nil, old.value, flow) }
    }

    /// Serves the table under a name: `GET /v1/streams/STREAM/NAME/KEY` and `headrace view STREAM NAME KEY` tell what it holds for a
    /// key, now or as of a moment of the past.
    @discardableResult
    public func served(as name: String) -> EventTable<Value> {
        precondition(!builder.views.contains { $0.name == name }, "a stream serves one table as '\(name)'")
        builder.views.append(
            (
                name,
                { [store] key in
                    guard let entry = store[key] else { return nil }
                    var writer = JSONWriter()
                    entry.value.write(to: &writer)
                    return (try JSON(parsing: writer.bytes), entry.time)
                }
            ))
        return self
    }

    /// What it holds for a key now.
    public func value(_ key: String) -> Value? { store[key]?.value }

    /// Every new value.
    public func changes(_ name: String = "changes") -> EventStream<Value> {
        let made = EventStream<Value>(builder, builder.node(.map, name, parents: [node]))
        receive { key, new, _, flow in
            guard let new else { return }
            try made.outlet.send(StreamRecord(key: key, value: new, time: flow.now), flow)
        }
        return made
    }

    /// The newest value of each key that changed, once for every so many milliseconds of event time: at the multiples of them since
    /// 1970, behind every event up to there (Kafka Streams' `suppress(untilTimeLimit:)`). A key that was taken away by then is left out.
    public func changes(atMostEvery milliseconds: Int64, _ name: String = "suppress") -> EventStream<Value> {
        precondition(milliseconds > 0, "changes are held back for some time")
        let number = builder.node(.process, name, parents: [node], settings: ["every \(milliseconds) ms"])
        let due: StateStore<Due> = builder.store(number)
        let made = EventStream<Value>(builder, number)
        receive { key, _, _, flow in
            guard !due.has(key) else { return }
            let end = Instant(milliseconds: windowEnd(flow.now.milliseconds, milliseconds))
            due.set(key, Due())
            flow.setTimer(number, at: end, key: key)
        }
        builder.timers[number] = { [store] key, time, flow in
            guard due.remove(key) != nil, let entry = store[key] else { return }
            try made.outlet.send(StreamRecord(key: key, value: entry.value, time: time), flow)
        }
        return made
    }

    /// Another table made of each value; nil leaves the key out.
    public func mapValues<New: StreamValue, Failure: Error>(
        _ name: String = "map", _ transform: @escaping (String, Value) throws(Failure) -> New?
    ) -> EventTable<New> {
        let made = EventTable<New>(builder, name, parents: [node], mayThrow: Failure.self != Never.self)
        receive { key, new, _, flow in
            guard let new, let value = try transform(key, new) else { return try made.remove(key, flow) }
            try made.put(StreamRecord(key: key, value: value, time: flow.now), made.store[key]?.value, flow)
        }
        return made
    }

    /// Both tables' values of each key, as long as both have one, or as long as this one has one.
    public func join<Other: StreamValue>(
        _ other: EventTable<Other>, _ name: String = "join", keepsUnmatched: Bool = false
    ) -> EventTable<Joined<Value, Other>> {
        let made = EventTable<Joined<Value, Other>>(
            builder, name, parents: [node, other.node], .join, settings: keepsUnmatched ? ["keeps unmatched"] : [])
        // Its receivers must not name the table itself.
        let (lefts, rights) = (store, other.store)
        func update(_ key: String, _ flow: StreamFlow) throws {
            let (left, right) = (lefts[key]?.value, rights[key]?.value)
            guard let left, right != nil || keepsUnmatched else { return try made.remove(key, flow) }
            try made.put(
                StreamRecord(key: key, value: Joined(left, right), time: flow.now), made.store[key]?.value, flow)
        }
        receive { key, _, _, flow in try update(key, flow) }
        other.receive { key, _, _, flow in try update(key, flow) }
        return made
    }
}

/// A key whose change is held back.
private struct Due: StateValue {
    init() {}
    func encode(into writer: inout ByteWriter) {}
    init(decoding reader: inout ByteReader) throws(BaseError) {}
}

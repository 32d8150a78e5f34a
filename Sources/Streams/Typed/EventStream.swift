import Base

/// Where an operator sends what it makes.
@usableFromInline
final class Outlet<Value> {
    @usableFromInline var receivers: [(StreamRecord<Value>, StreamFlow) throws -> Void] = []

    @usableFromInline init() {}

    @inlinable
    func receive(_ body: @escaping (StreamRecord<Value>, StreamFlow) throws -> Void) { receivers.append(body) }

    @inlinable @inline(__always)
    func send(_ record: StreamRecord<Value>, _ flow: StreamFlow) throws {
        for receiver in receivers { try receiver(record, flow) }
    }
}

/// A stream of typed values. Every operator gives a new stream; a stream may be used by several.
public struct EventStream<Value: StreamValue> {
    @usableFromInline let builder: StreamBuilder
    @usableFromInline let node: Int
    @usableFromInline let outlet = Outlet<Value>()

    @usableFromInline
    init(_ builder: StreamBuilder, _ node: Int) {
        self.builder = builder
        self.node = node
    }

    @inlinable
    func next<New: StreamValue>(
        _ kind: StreamNode.Kind, _ name: String, _ type: New.Type = New.self, mayThrow: Bool = false
    ) -> EventStream<New> {
        EventStream<New>(builder, builder.node(kind, name, parents: [node], mayThrow: mayThrow))
    }

    /// For what keeps state, and for what writes: of a topology by key a task takes what is its own.
    @inlinable
    func receiveOwn(_ body: @escaping (StreamRecord<Value>, StreamFlow) throws -> Void) {
        guard builder.selects(behind: node) else { return outlet.receive(body) }
        outlet.receive { record, flow in
            guard flow.owns(record.key) else { return }
            flow.isAmongOwn = true
            try body(record, flow)
            flow.isAmongOwn = false
        }
    }

    /// Those for which the predicate holds.
    @inlinable
    public func filter<Failure: Error>(
        _ name: String = "filter", _ isWanted: @escaping (StreamRecord<Value>) throws(Failure) -> Bool
    ) -> EventStream<Value> {
        let made = next(.filter, name, Value.self, mayThrow: Failure.self != Never.self)
        outlet.receive { [out = made.outlet] record, flow in
            if try isWanted(record) { try out.send(record, flow) }
        }
        return made
    }

    /// One new value for each.
    @inlinable
    public func map<New: StreamValue, Failure: Error>(
        _ name: String = "map", _ transform: @escaping (StreamRecord<Value>) throws(Failure) -> New
    ) -> EventStream<New> {
        let made = next(.map, name, New.self, mayThrow: Failure.self != Never.self)
        outlet.receive { [out = made.outlet] record, flow in try out.send(record.with(try transform(record)), flow) }
        return made
    }

    /// Any number of new values for each, in their order.
    @inlinable
    public func flatMap<New: StreamValue, Failure: Error>(
        _ name: String = "flatMap", _ transform: @escaping (StreamRecord<Value>) throws(Failure) -> [New]
    ) -> EventStream<New> {
        let made = next(.flatMap, name, New.self, mayThrow: Failure.self != Never.self)
        outlet.receive { [out = made.outlet] record, flow in
            for value in try transform(record) { try out.send(record.with(value), flow) }
        }
        return made
    }

    /// A stream for each predicate, and one for the rest; a value goes to the first whose predicate holds.
    public func branch<Failure: Error>(
        _ name: String = "branch", _ predicates: ((StreamRecord<Value>) throws(Failure) -> Bool)...
    ) -> [EventStream<Value>] {
        let made = (0...predicates.count).map {
            next(.branch, "\(name) \($0)", Value.self, mayThrow: Failure.self != Never.self)
        }
        outlet.receive { [outlets = made.map(\.outlet)] record, flow in
            let first = try predicates.firstIndex { try $0(record) } ?? predicates.count
            try outlets[first].send(record, flow)
        }
        return made
    }

    /// Both streams as one, in the order in which their values come.
    public func merge(_ other: EventStream<Value>, _ name: String = "merge") -> EventStream<Value> {
        let made = EventStream<Value>(builder, builder.node(.merge, name, parents: [node, other.node]))
        for outlet in [outlet, other.outlet] {
            outlet.receive { [out = made.outlet] record, flow in try out.send(record, flow) }
        }
        return made
    }

    /// The same values under a key of their own; those without one are left out.
    /// - Parameter keepsPartition: values that have one key here stand in one partition of their topic, so that a topology
    ///   which runs by partition may keep state under it.
    @inlinable
    public func keyed<Failure: Error>(
        _ name: String = "key", keepsPartition: Bool = false,
        by key: @escaping (StreamRecord<Value>) throws(Failure) -> String?
    ) -> KeyedStream<Value> {
        let made = next(.key, name, Value.self, mayThrow: Failure.self != Never.self)
        builder.nodes[made.node].isPartitioned = keepsPartition
        if keepsPartition { builder.nodes[made.node].settings = ["keeps partition"] }
        outlet.receive { [out = made.outlet] record, flow in
            guard let key = try key(record), !key.isEmpty else { return }
            try out.send(StreamRecord(key: key, value: record.value, time: record.time), flow)
        }
        return KeyedStream(stream: made)
    }

    /// Under the keys that the events have in their topic.
    @inlinable
    public func keyedByEvent(_ name: String = "key of the event") -> KeyedStream<Value> {
        let keyed = keyed(name) { $0.key.isEmpty ? nil : $0.key }
        builder.nodes[keyed.stream.node].isPartitioned = nil
        return keyed
    }

    /// Emits every value to a topic, under an id that a re-emission repeats.
    @inlinable
    public func to(_ topic: String, type: String) {
        _ = builder.node(.sink, topic, parents: [node], topic: topic)
        var writer = JSONWriter(capacity: 256)
        receiveOwn { record, flow in
            writer.reset()
            record.value.write(to: &writer)
            flow.emit(topic: topic, type: type, key: record.key, data: writer.bytes)
        }
    }

    /// Hands every value to a closure: for tests, and for what a stage serves beside its topics.
    public func forEach<Failure: Error>(_ body: @escaping (StreamRecord<Value>) throws(Failure) -> Void) {
        outlet.receive { record, _ in try body(record) }
    }
}

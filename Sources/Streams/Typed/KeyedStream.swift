import Base

/// A stream whose values belong to keys: what has state, windows and joins.
public struct KeyedStream<Value: StreamValue> {
    /// The same values without what belongs to their keys.
    public let stream: EventStream<Value>

    @usableFromInline
    init(stream: EventStream<Value>) { self.stream = stream }

    var builder: StreamBuilder { stream.builder }

    /// One new value for each, under the same key.
    @inlinable
    public func map<New: StreamValue, Failure: Error>(
        _ name: String = "map", _ transform: @escaping (StreamRecord<Value>) throws(Failure) -> New
    ) -> KeyedStream<New> {
        KeyedStream<New>(stream: stream.map(name, transform))
    }

    /// Those for which the predicate holds, under the same keys.
    @inlinable
    public func filter<Failure: Error>(
        _ name: String = "filter", _ isWanted: @escaping (StreamRecord<Value>) throws(Failure) -> Bool
    ) -> KeyedStream<Value> {
        KeyedStream(stream: stream.filter(name, isWanted))
    }

    /// What a processor may do besides changing its state.
    public final class Output<Made: StreamValue> {
        fileprivate var made: [Made] = []
        fileprivate var timers: [Instant] = []
        fileprivate var forgets = false

        /// Sends a value on, under the same key and with the stream's time.
        public func emit(_ value: Made) { made.append(value) }
        /// Fires for this key after every event with a time up to its own.
        public func setTimer(at time: Instant) { timers.append(time) }
        /// Drops this key's state; the next event begins with a new one.
        public func forget() { forgets = true }

        fileprivate func reset() {
            made.removeAll(keepingCapacity: true)
            timers.removeAll(keepingCapacity: true)
            forgets = false
        }
    }

    /// A processor of one's own with a state for each key. Where something is thrown, nothing of the event is left: neither what
    /// it changed nor what it emitted, here or in any other operator.
    /// - Parameter initial: of a key that is seen first.
    public func process<State: StreamValue, Made: StreamValue, Failure: Error>(
        _ name: String, state initial: @autoclosure @escaping () -> State, emits type: Made.Type = Made.self,
        _ body: @escaping (StreamRecord<Value>, inout State, Output<Made>) throws(Failure) -> Void
    ) -> EventStream<Made> {
        process(name, initial, nil, body, mayThrow: Failure.self != Never.self)
    }

    /// The same with timers.
    /// - Parameter timer: called when a timer that was set for a key comes up.
    public func process<State: StreamValue, Made: StreamValue, TimerFailure: Error, Failure: Error>(
        _ name: String, state initial: @autoclosure @escaping () -> State, emits type: Made.Type = Made.self,
        timer: @escaping (_ key: String, _ at: Instant, inout State, Output<Made>) throws(TimerFailure) -> Void,
        _ body: @escaping (StreamRecord<Value>, inout State, Output<Made>) throws(Failure) -> Void
    ) -> EventStream<Made> {
        process(
            name, initial, timer, body, mayThrow: Failure.self != Never.self || TimerFailure.self != Never.self)
    }

    private func process<State: StreamValue, Made: StreamValue>(
        _ name: String, _ initial: @escaping () -> State,
        _ timer: ((_ key: String, _ at: Instant, inout State, Output<Made>) throws -> Void)?,
        _ body: @escaping (StreamRecord<Value>, inout State, Output<Made>) throws -> Void, mayThrow: Bool
    ) -> EventStream<Made> {
        let number = builder.node(.process, name, parents: [stream.node], mayThrow: mayThrow)
        let store: StateStore<Held<State>> = builder.store(number)
        let made = EventStream<Made>(builder, number)
        let output = Output<Made>()
        func deliver(_ key: String, _ time: Instant, _ flow: StreamFlow) throws {
            if output.forgets { _ = store.remove(key) }
            for time in output.timers { flow.setTimer(number, at: time, key: key) }
            for value in output.made {
                try made.outlet.send(StreamRecord(key: key, value: value, time: time), flow)
            }
        }
        stream.receiveOwn { record, flow in
            output.reset()
            try store.modify(record.key, default: Held(initial())) { try body(record, &$0.value, output) }
            try deliver(record.key, record.time, flow)
        }
        if let timer {
            builder.timers[number] = { key, time, flow in
                guard store.has(key) else { return }
                output.reset()
                try store.modify(key, default: Held(initial())) { try timer(key, time, &$0.value, output) }
                try deliver(key, time, flow)
            }
        }
        return made
    }

    /// One running value for each key, emitted whenever it changes.
    public func reduce<Failure: Error>(
        _ name: String = "reduce", _ combine: @escaping (Value, StreamRecord<Value>) throws(Failure) -> Value
    ) -> EventTable<Value> {
        let made = EventTable<Value>(builder, name, parents: [stream.node], mayThrow: Failure.self != Never.self)
        stream.receiveOwn { record, flow in
            let old = made.store[record.key]?.value
            let new = try old.map { try combine($0, record) } ?? record.value
            try made.put(record.with(new), old, flow)
        }
        return made
    }

    /// The newest value of each key.
    public func table(_ name: String = "table") -> EventTable<Value> {
        let made = EventTable<Value>(builder, name, parents: [stream.node])
        stream.receiveOwn { record, flow in try made.put(record, made.store[record.key]?.value, flow) }
        return made
    }

    /// In windows, of which measures say something.
    @inlinable
    public func windowed(by window: WindowShape) -> WindowedStream<Value> {
        WindowedStream(stream: stream, window: window)
    }

    // MARK: Joins

    /// Each value with the newest one of a table under its key, as of the value's time. Values without one are left out, or
    /// kept with nothing beside them.
    /// - Parameter within: how old, in milliseconds, what the table holds may be (an as-of join with a bound).
    public func join<Other: StreamValue>(
        _ table: EventTable<Other>, _ name: String = "join", keepsUnmatched: Bool = false, within: Int64? = nil
    ) -> EventStream<Joined<Value, Other>> {
        let made = EventStream<Joined<Value, Other>>(
            builder,
            builder.node(
                .join, name, parents: [stream.node, table.node],
                settings: (keepsUnmatched ? ["keeps unmatched"] : []) + (within.map { ["within \($0) ms"] } ?? [])))
        let store = table.store
        stream.receiveOwn { [out = made.outlet] record, flow in
            var found = store[record.key]
            if let within, let entry = found, record.time - entry.time > within { found = nil }
            guard found != nil || keepsUnmatched else { return }
            try out.send(record.with(Joined(record.value, found?.value)), flow)
        }
        return made
    }

    /// Pairs of values of two streams under one key whose times are close: the other's lies from `before` milliseconds
    /// before this one's to `after` behind it. A pair comes when its later value does; a value of this stream that found
    /// none comes, if it is kept, when none can come any more.
    public func join<Other: StreamValue>(
        _ other: KeyedStream<Other>, before: Int64, after: Int64, _ name: String = "join", keepsUnmatched: Bool = false
    ) -> EventStream<Joined<Value, Other>> {
        StreamJoin(self, other, before: before, after: after, name, keepsUnmatched: keepsUnmatched).made
    }
}

import Base

/// A key's session under way.
struct SessionState: StateValue {
    let first: Int64
    var last: Int64
    var states: MeasureStates

    init(first: Int64, _ states: MeasureStates) {
        self.first = first
        last = first
        self.states = states
    }

    func encode(into writer: inout ByteWriter) {
        writer.append(little: first)
        writer.append(little: last)
        states.encode(into: &writer)
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        first = try reader.little()
        last = try reader.little()
        states = try MeasureStates(decoding: &reader)
    }
}

/// Windows that last as long as their key's events are no further apart than the gap.
struct SessionWindows<Value: StreamValue> {
    let made: EventStream<WindowResult>

    init(
        _ stream: EventStream<Value>, _ node: Int, _ measures: [Measure<Value>], gap: Int64, _ emission: Emission
    ) {
        precondition(gap >= 0, "a session's gap is no negative time")
        let store: StateStore<SessionState> = stream.builder.store(node)
        let made = EventStream<WindowResult>(stream.builder, node)
        self.made = made
        let names = WindowNames(measures.map(\.name))
        func result(_ state: SessionState) -> WindowResult {
            WindowResult(from: state.first, to: state.last, names, state.states.results(measures))
        }
        stream.receiveOwn { record, flow in
            let inputs = try contributions(measures, record.value)
            let time = record.time.milliseconds
            // The timer closes a session behind every event that still reaches it, so what is there goes on.
            let isNew = !store.has(record.key)
            let now = store.modify(record.key, default: SessionState(first: time, MeasureStates(measures))) {
                (state: inout SessionState) -> WindowResult? in
                state.last = time
                state.states.add(inputs, measures)
                if case .onEveryEvent = emission { return result(state) }
                return nil
            }
            if isNew { flow.setTimer(node, at: record.time + gap, key: record.key) }
            if let now { try made.outlet.send(record.with(now), flow) }
        }
        stream.builder.timers[node] = { key, at, flow in
            guard let state = store[key] else { return }
            guard state.last &+ gap <= at.milliseconds else {
                // It has gone on since the timer was set.
                return flow.setTimer(node, at: Instant(milliseconds: state.last + gap), key: key)
            }
            _ = store.remove(key)
            try made.outlet.send(StreamRecord(key: key, value: result(state), time: at), flow)
        }
    }
}

import Base

/// A key's panes, oldest first: windows that overlap share them, so an event is added once however many it lies in.
struct PaneState: StateValue {
    var panes: [(end: Int64, states: MeasureStates)] = []
    /// End of the next window that is to close, for which a timer is set; nil when there is none.
    var closes: Int64?

    init() {}

    func encode(into writer: inout ByteWriter) {
        writer.append(UInt8(closes == nil ? 0 : 1))
        writer.append(little: closes ?? 0)
        writer.append(little: UInt32(panes.count))
        for pane in panes {
            writer.append(little: pane.end)
            pane.states.encode(into: &writer)
        }
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        let isSet = try reader.byte() == 1
        let end: Int64 = try reader.little()
        closes = isSet ? end : nil
        for _ in 0..<(try reader.little(UInt32.self)) {
            let end: Int64 = try reader.little()
            panes.append((end, try MeasureStates(decoding: &reader)))
        }
    }
}

/// Tumbling and hopping windows out of panes as long as the greatest common divisor of size and step.
struct PaneWindows<Value: StreamValue> {
    let made: EventStream<WindowResult>
    private let measures: [Measure<Value>]
    private let names: WindowNames
    private let size: Int64
    private let step: Int64

    init(
        _ stream: EventStream<Value>, _ node: Int, _ measures: [Measure<Value>], size: Int64, step: Int64,
        _ emission: Emission
    ) {
        precondition(size > 0 && step > 0 && step <= size, "a window's step lies between 1 and its size")
        self.measures = measures
        names = WindowNames(measures.map(\.name))
        self.size = size
        self.step = step
        let store: StateStore<PaneState> = stream.builder.store(node)
        let made = EventStream<WindowResult>(stream.builder, node)
        self.made = made
        let windows = self
        let pane = PaneWindows.divisor(size, step)
        stream.receiveOwn { record, flow in
            let inputs = try contributions(measures, record.value)
            let time = record.time.milliseconds
            var timer: Int64?
            var results: [WindowResult] = []
            store.modify(record.key, default: PaneState()) { state in
                let end = windowEnd(time, pane)
                if state.panes.last?.end != end { state.panes.append((end, MeasureStates(measures))) }
                state.panes[state.panes.count - 1].states.add(inputs, measures)
                if state.closes == nil {
                    state.closes = windowEnd(time, step)
                    timer = state.closes
                }
                guard case .onEveryEvent = emission else { return }
                for end in stride(from: windowEnd(time, step), to: time + size, by: Int(step)) {
                    results.append(windows.result(state, end))
                }
            }
            if let timer { flow.setTimer(node, at: Instant(milliseconds: timer), key: record.key) }
            for result in results { try made.outlet.send(record.with(result), flow) }
        }
        stream.builder.timers[node] = { key, at, flow in
            guard let state = store[key], state.closes == at.milliseconds else { return }
            let result = windows.result(state, at.milliseconds)
            let next = windows.close(store, key, at.milliseconds)
            if let next { flow.setTimer(node, at: Instant(milliseconds: next), key: key) }
            try made.outlet.send(StreamRecord(key: key, value: result, time: at), flow)
        }
    }

    static func divisor(_ left: Int64, _ right: Int64) -> Int64 { right == 0 ? left : divisor(right, left % right) }

    /// What the window that ends there says.
    private func result(_ state: PaneState, _ end: Int64) -> WindowResult {
        var whole = MeasureStates(measures)
        for pane in state.panes where pane.end > end - size && pane.end <= end { whole.merge(pane.states, measures) }
        return WindowResult(from: end - size, to: end, names, whole.results(measures))
    }

    /// Drops what only closed windows hold. The end of the next window that holds something, if there is one.
    private func close(_ store: StateStore<PaneState>, _ key: String, _ end: Int64) -> Int64? {
        store.modify(key, default: PaneState()) { state in
            let next = end + step
            state.panes.removeAll { $0.end <= next - size }
            guard let first = state.panes.first else {
                state.closes = nil
                return
            }
            // A window that would hold nothing is not given.
            state.closes = max(next, windowEnd(first.end, step))
        }
        let next = store[key]?.closes
        if next == nil { _ = store.remove(key) }
        return next
    }
}

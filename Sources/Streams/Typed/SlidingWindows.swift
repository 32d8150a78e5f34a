import Base
import Learning

/// What is known of one measure in a window that slides: the newest value is added and the oldest taken away, at a cost that
/// does not depend on how many there are, with the bits that a recount would give. Derived from the kept values.
enum SlidingMeasure: Sendable {
    case count(Int64)
    case sum(ExactSum, count: Int64)
    case moments(Moments)
    case extreme(ExtremeQueue)
    case histogram(LogHistogram)
    case texts([StateKey: Int64])
    /// Oldest and newest are looked up.
    case edge

    init<Value>(_ measure: Measure<Value>) {
        self =
            switch measure.kind {
            case .count: .count(0)
            case .sum, .mean: .sum(ExactSum(), count: 0)
            case .variance, .stddev: .moments(Moments())
            case .min: .extreme(ExtremeQueue(keepsLeast: true))
            case .max: .extreme(ExtremeQueue(keepsLeast: false))
            case .first, .last: .edge
            case .distinct, .top: .texts([:])
            case .quantile: .histogram(LogHistogram())
            }
    }

    mutating func change(_ input: MeasureInput, _ entry: Int, adds: Bool) {
        switch (self, input) {
        case (.count(let count), _): self = .count(count + (adds ? 1 : -1))
        case (.sum(var sum, let count), .number(let number)):
            self = .edge
            if adds { sum.add(number) } else { sum.subtract(number) }
            self = .sum(sum, count: count + (adds ? 1 : -1))
        case (.moments(var moments), .number(let number)):
            self = .edge
            if adds { moments.add(number) } else { moments.subtract(number) }
            self = .moments(moments)
        case (.extreme(var queue), .number(let number)):
            self = .edge
            if adds { queue.add(number, entry) } else { queue.remove(entry) }
            self = .extreme(queue)
        case (.histogram(var histogram), .number(let number)):
            self = .edge
            if adds { histogram.add(number) } else { histogram.subtract(number) }
            self = .histogram(histogram)
        case (.texts(var counts), .text(let text)):
            self = .edge
            let key = StateKey(text)
            let left = counts[key, default: 0] + (adds ? 1 : -1)
            counts[key] = left > 0 ? left : nil
            self = .texts(counts)
        default: break
        }
    }
}

/// A key's values in the window, and what is kept up of them.
struct SlidingState: StateValue {
    private var times: [Int64] = []
    private var rows: [[MeasureInput?]] = []
    private var start = 0
    /// Entries dropped from the arrays: an entry's own number is this and its index.
    private var dropped = 0
    /// Empty until it is needed: it is not encoded.
    private var measures: [SlidingMeasure] = []

    init() {}

    /// Takes a value in and everything at or before `time − size` out.
    mutating func slide<Value>(
        to time: Int64, size: Int64, _ inputs: [MeasureInput?], _ list: [Measure<Value>]
    ) -> [(name: String, value: JSON)] {
        prepare(list)
        times.append(time)
        rows.append(inputs)
        change(times.count - 1, adds: true)
        while times[start] <= time - size {
            change(start, adds: false)
            start += 1
        }
        if start > 32, start * 2 > times.count {
            times.removeFirst(start)
            rows.removeFirst(start)
            dropped += start
            start = 0
        }
        return list.indices.map { (list[$0].name, result($0, list[$0])) }
    }

    private mutating func prepare<Value>(_ list: [Measure<Value>]) {
        guard measures.isEmpty else { return }
        measures = list.map { SlidingMeasure($0) }
        for index in start..<times.count { change(index, adds: true) }
    }

    private mutating func change(_ index: Int, adds: Bool) {
        for measure in measures.indices {
            if let input = rows[index][measure] { measures[measure].change(input, dropped + index, adds: adds) }
        }
    }

    private func result<Value>(_ index: Int, _ measure: Measure<Value>) -> JSON {
        switch measures[index] {
        case .count(let count): return .int(count)
        case .sum(let sum, let count):
            if count == 0 { return .null }
            return MeasureState.json(measure.kind == .mean ? sum.value / Double(count) : sum.value)
        case .moments(let moments): return MeasureState.moments(moments).result(measure)
        case .extreme(let queue): return MeasureState.json(queue.first)
        case .histogram(let histogram): return MeasureState.histogram(histogram).result(measure)
        case .texts(let counts):
            if case .top(let limit) = measure.kind { return MeasureState.ranking(counts, limit) }
            return .double(Double(counts.count))
        case .edge:
            let places = Array(start..<times.count)
            for place in measure.kind == .first ? places : places.reversed() {
                if case .number(let value) = rows[place][index] { return MeasureState.json(value) }
            }
            return .null
        }
    }

    func encode(into writer: inout ByteWriter) {
        writer.append(little: UInt32(times.count - start))
        for index in start..<times.count {
            writer.append(little: times[index])
            writer.append(little: UInt32(rows[index].count))
            for input in rows[index] {
                switch input {
                case nil: writer.append(UInt8(0))
                case .one: writer.append(UInt8(1))
                case .number(let number):
                    writer.append(UInt8(2))
                    writer.append(number)
                case .text(let text):
                    writer.append(UInt8(3))
                    writer.append(sized: text)
                }
            }
        }
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        for _ in 0..<(try reader.little(UInt32.self)) {
            times.append(try reader.little())
            var row: [MeasureInput?] = []
            for _ in 0..<(try reader.little(UInt32.self)) {
                switch try reader.byte() {
                case 0: row.append(nil)
                case 1: row.append(.one)
                case 2: row.append(.number(try reader.double()))
                case 3: row.append(.text(try reader.sizedText()))
                default: throw BaseError("bad-state", "a value of an unknown kind", fault: .headrace)
                }
            }
            rows.append(row)
        }
    }
}

/// Windows that end at every event.
struct SlidingWindows<Value: StreamValue> {
    let made: EventStream<WindowResult>

    init(_ stream: EventStream<Value>, _ node: Int, _ measures: [Measure<Value>], size: Int64) {
        precondition(size > 0, "a window has a size")
        let store: StateStore<SlidingState> = stream.builder.store(node)
        let made = EventStream<WindowResult>(stream.builder, node)
        self.made = made
        stream.outlet.receive { record, flow in
            let inputs = try contributions(measures, record.value)
            let time = record.time.milliseconds
            let isNew = !store.has(record.key)
            let values = store.modify(record.key, default: SlidingState()) {
                $0.slide(to: time, size: size, inputs, measures)
            }
            if isNew { flow.setTimer(node, at: record.time + size, key: record.key) }
            try made.outlet.send(record.with(WindowResult(from: time - size, to: time, values)), flow)
        }
        // A key of which nothing comes any more leaves nothing behind.
        stream.builder.timers[node] = { key, at, flow in
            guard let newest = store[key]?.newest else { return }
            if newest <= at.milliseconds - size {
                _ = store.remove(key)
            } else {
                flow.setTimer(node, at: Instant(milliseconds: newest + size), key: key)
            }
        }
    }
}

extension SlidingState {
    /// Time of the newest value.
    var newest: Int64? { times.last }
}

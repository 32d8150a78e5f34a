import Base
import Learning

/// The measures of a sliding window as columns: what is kept of every value, and where each result is read. It knows nothing of
/// the values' type: what is generic would be looked up anew for every event.
struct SlidingPlan: Sendable {
    private enum Place {
        case count(Int)
        case number(Int)
        case distinct(window: Int, column: Int)
        case top(Int, window: Int, column: Int)
    }

    let names: WindowNames
    let numbers: WindowPlan
    /// Which measures need a number, and which a text, of each value.
    let numberColumns: [Int]
    let textColumns: [Int]
    private let textSpans: [Int64]
    private let places: [Place]
    /// The window that the results name: the longest.
    let size: Int64

    /// - Parameter size: of measures without a length of their own, in milliseconds.
    init<Value>(_ measures: [Measure<Value>], size: Int64) {
        precondition(size > 0, "a window has a size")
        names = WindowNames(measures.map(\.name))
        self.size = measures.compactMap(\.span).reduce(size, max)
        let columns = measures.indices.filter { measures[$0].kind != .count && !measures[$0].isOfTexts }
        let texts = measures.indices.filter { measures[$0].isOfTexts }
        var spans: [Int64] = []
        for index in texts where !spans.contains(measures[index].span ?? size) {
            spans.append(measures[index].span ?? size)
        }
        var plan = WindowPlan(columnCount: columns.count)
        var places: [Place] = []
        for (index, measure) in measures.enumerated() {
            let span = measure.span ?? size
            if let column = texts.firstIndex(of: index) {
                let window = spans.firstIndex(of: span) ?? 0
                if case .top(let limit) = measure.kind {
                    places.append(.top(limit, window: window, column: column))
                } else {
                    places.append(.distinct(window: window, column: column))
                }
                continue
            }
            let (reading, share) = measure.kind.reading
            places.append(measure.kind == .count ? .count(plan.readings.count) : .number(plan.readings.count))
            plan.read(reading, column: columns.firstIndex(of: index), span: span, share: share)
        }
        (numbers, numberColumns, textColumns, textSpans, self.places) = (plan, columns, texts, spans, places)
    }

    /// Takes a value in as it was read; what every measure says then.
    func slide(_ state: inout SlidingState, to time: Int64, _ buffers: SlidingBuffers) -> [JSON] {
        if !textColumns.isEmpty { state.texts.slide(to: time, buffers.texts, spans: textSpans) }
        state.newest = time
        state.numbers.add(time: time, row: buffers.row, plan: numbers)
        buffers.results.removeAll(keepingCapacity: true)
        state.numbers.read(numbers, at: time, into: &buffers.results)
        var list: [JSON] = []
        list.reserveCapacity(places.count)
        for place in places {
            switch place {
            case .count(let index): list.append(.int(Int64(buffers.results[index])))
            case .number(let index): list.append(MeasureState.json(buffers.results[index]))
            case .distinct(let window, let column):
                list.append(.double(Double(state.texts.counts(window: window, column: column).count)))
            case .top(let limit, let window, let column):
                list.append(MeasureState.ranking(state.texts.counts(window: window, column: column), limit))
            }
        }
        return list
    }
}

/// Reused from event to event.
final class SlidingBuffers {
    var row: [Double] = []
    var texts: [String?] = []
    var results: [Double] = []
}

/// A key's values in the window.
struct SlidingState: StateValue {
    var numbers: WindowState
    var texts = TextWindows()
    /// Time of the newest value.
    var newest: Int64 = .min

    init(columnCount: Int) { numbers = WindowState(columnCount: columnCount) }

    func encode(into writer: inout ByteWriter) {
        writer.append(little: newest)
        numbers.encode(into: &writer)
        texts.encode(into: &writer)
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        newest = try reader.little()
        numbers = try WindowState(decoding: &reader)
        texts = try TextWindows(decoding: &reader)
    }
}

/// Windows that end at every event, of one operator.
@usableFromInline
final class SlidingWindows {
    @usableFromInline let node: Int
    /// Which measures need a number, and which a text, of each value.
    @usableFromInline let numberColumns: [Int]
    @usableFromInline let textColumns: [Int]
    private let plan: SlidingPlan
    private let store: StateStore<SlidingState>
    private let buffers = SlidingBuffers()

    init(_ builder: StreamBuilder, _ node: Int, _ plan: SlidingPlan) {
        self.node = node
        self.plan = plan
        (numberColumns, textColumns) = (plan.numberColumns, plan.textColumns)
        let store: StateStore<SlidingState> = builder.store(node)
        self.store = store
        // A key of which nothing comes any more leaves nothing behind.
        builder.timers[node] = { [size = plan.size] key, at, flow in
            guard let newest = store.inspect(key, { $0.newest }) else { return }
            if newest <= at.milliseconds - size {
                _ = store.remove(key)
            } else {
                flow.setTimer(node, at: Instant(milliseconds: newest + size), key: key)
            }
        }
    }

    /// Before the numbers and texts of a value.
    @usableFromInline
    func begin() {
        buffers.row.removeAll(keepingCapacity: true)
        if !textColumns.isEmpty { buffers.texts.removeAll(keepingCapacity: true) }
    }

    @usableFromInline
    func take(_ number: Double?) { buffers.row.append(number ?? .nan) }

    @usableFromInline
    func take(_ text: String?) { buffers.texts.append(text) }

    /// Takes the value in of which everything was taken; what its window says then.
    @usableFromInline
    func slide(_ key: String, _ time: Instant, _ flow: StreamFlow) -> WindowResult {
        let milliseconds = time.milliseconds
        var isNew = false
        let values = store.modify(key, default: SlidingState(columnCount: plan.numbers.columnCount)) {
            isNew = $0.newest == .min
            return plan.slide(&$0, to: milliseconds, buffers)
        }
        if isNew { flow.setTimer(node, at: time + plan.size, key: key) }
        return WindowResult(from: milliseconds - plan.size, to: milliseconds, plan.names, values)
    }
}

extension Measure.Kind {
    /// How numbers of it are read from a window, and which quantile.
    var reading: (measure: WindowMeasure, share: Double) {
        switch self {
        case .count: (.count, 0)
        case .sum: (.sum, 0)
        case .mean: (.mean, 0)
        case .variance: (.variance, 0)
        case .stddev: (.stddev, 0)
        case .min: (.min, 0)
        case .max: (.max, 0)
        case .first: (.oldest, 0)
        case .last: (.newest, 0)
        case .quantile(let share): (.quantile, share)
        case .distinct, .top: (.distinct, 0)
        }
    }
}

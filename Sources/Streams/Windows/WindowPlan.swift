import Base

/// What one number says of a window, or of a key's newest event.
package enum WindowMeasure: Sendable {
    case count, sum, mean, min, max
    /// Over n - 1; missing of fewer than two values.
    case variance, stddev
    /// Different values; exact.
    case distinct
    /// Within `LogHistogram.relativeError`.
    case quantile
    /// Of the oldest event in the window, missing when it is missing there.
    case first
    /// Of the oldest, or newest, event in the window that has a value.
    case oldest, newest
    /// Of the `rank`-th newest event in the window that has a value.
    case nthNewest
    /// The label that stands `rank`-th most often in the window; read by `WindowState.label`, its number is missing.
    case top
    /// Of the newest event of all, missing when it is missing there.
    case last
    /// Since the newest event of all.
    case secondsSince, hoursSince
}

/// One number as it is read: of which measure, column and window.
package struct WindowReading: Sendable {
    package let measure: WindowMeasure
    /// -1 for measures that only look at times.
    let column: Int
    /// -1 for measures of the newest event.
    let window: Int
    /// Which quantile, from 0 to 1.
    let share: Double
    /// Of `nthNewest` and `top`, from 1 on.
    let rank: Int
}

/// Which sliding windows (t − span, t] are kept up over the events of a key, what each column of each is to give, and what is
/// read of them. Everything that slides goes by such a plan: feature views and typed streams have one aggregation core.
package struct WindowPlan: Sendable {
    package let columnCount: Int
    /// Distinct lengths, in milliseconds.
    package private(set) var spans: [Int64] = []
    package private(set) var readings: [WindowReading] = []
    /// What each column of each window is to give.
    private(set) var measures: [[WindowColumn.Measures]] = []
    /// Columns of which the labels are kept behind the numbers that stand for them.
    package private(set) var labelled: [Int] = []

    package init(columnCount: Int) { self.columnCount = columnCount }

    /// Adds a number that is read after those added before.
    /// - Parameters:
    ///   - column: nil for measures that only look at times.
    ///   - span: nil for measures of the newest event.
    package mutating func read(_ measure: WindowMeasure, column: Int?, span: Int64?, share: Double = 0, rank: Int = 0) {
        var window = -1
        if let span {
            window = spans.firstIndex(of: span) ?? spans.count
            if window == spans.count {
                spans.append(span)
                measures.append(Array(repeating: [], count: columnCount))
            }
            if measure == .top, let column, !labelled.contains(column) { labelled.append(column) }
            if let column { measures[window][column].formUnion(WindowColumn.Measures(measure)) }
        }
        readings.append(WindowReading(measure: measure, column: column ?? -1, window: window, share: share, rank: rank))
    }

    /// The longest window, in milliseconds: what must be kept.
    package var longestSpan: Int64 { spans.max() ?? 0 }
}

import Base
import Streams

extension FeatureView {
    /// What the view takes of an event: its key and its value columns. Every path that computes features reads events here.
    /// - Parameters:
    ///   - scope: the event's data is bound.
    ///   - row: is filled with a number for each column, NaN where there is none.
    ///   - texts: is filled with the texts that stand in place of numbers; empty when there are none.
    /// - Returns: nil when the event is none of the view's.
    func read(_ scope: inout CELContext, row: inout [Double], texts: inout [String?]) throws -> String? {
        if let filter, !(try filter.bool(&scope)) { return nil }
        guard let key = try key.label(&scope), !key.isEmpty else { return nil }
        row.removeAll(keepingCapacity: true)
        texts.removeAll(keepingCapacity: true)
        for (place, column) in columns.enumerated() {
            guard column.kind == .latest || column.kind == .category else {
                row.append(try column.value(&scope))
                continue
            }
            let (number, text) = column.kind == .latest ? try column.latest(&scope) : try column.category(&scope)
            row.append(number)
            guard let text else { continue }
            if texts.isEmpty { texts = Array(repeating: nil, count: columns.count) }
            texts[place] = text
        }
        return key
    }

    /// The text that a feature is of a key as of a moment; nil where it is a number or missing.
    func text(_ feature: Int, _ state: inout WindowState, at now: Int64) -> String? {
        switch aggregates[feature].function {
        case .last: aggregates[feature].column.flatMap { state.text($0) }
        case .topK: state.label(feature, plan, at: now)
        default: nil
        }
    }
}

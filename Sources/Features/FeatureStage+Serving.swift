import Base
import Streams

extension FeatureStage {
    /// Reads features of many keys in one go, as of a moment; changes nothing. What is derived of them is for `FeaturePlan.finish`.
    ///
    /// A key's values are withheld when its newest event is older than its view's `ttl`, to the millisecond inclusive.
    package func answer(
        _ plan: FeaturePlan, _ question: FeatureQuestion, at now: Instant
    ) throws(FeaturesError) -> FeatureAnswer {
        let count = try question.rowCount()
        guard count * plan.width <= Limits.onlineValues else {
            throw FeaturesError(
                "too-many-rows",
                "\(count) rows of \(plan.width) features (with what derived ones read) are more than the \(Limits.onlineValues) values that may be asked for at once"
            )
        }
        var columns = plan.columns.map { FeatureColumn(reference: $0) }
        for index in columns.indices {
            columns[index].values.reserveCapacity(count)
            columns[index].statuses.reserveCapacity(count)
        }
        var row: [Double] = []
        for read in plan.reads {
            guard let keys = question.entities.first(where: { $0.name == read.keyName })?.keys else {
                throw FeaturesError(
                    "missing-entity",
                    "the keys of '\(read.view.name)' are given as '\(read.keyName)'; 'entities' has \(question.entities.map(\.name).joined(separator: ", "))"
                )
            }
            guard let store = store(of: read.view.name) else {
                throw FeaturesError(
                    "unknown-view", "the feature view '\(read.view.name)' is folded from the node's next start on")
            }
            try requireSame(read.view)
            // One list for all features of a view.
            var times: [Int64?] = []
            times.reserveCapacity(count)
            for (place, key) in keys.enumerated() {
                row.removeAll(keepingCapacity: true)
                let lastTime = key.flatMap { key in
                    store.inspect(key) { state in
                        let isFresh = read.view.isFresh(state.lastTime, at: now.milliseconds)
                        if isFresh { state.read(read.view.plan, at: now.milliseconds, into: &row) }
                        guard isFresh else { return state.lastTime }
                        for (feature, column) in read.features where row[feature].isNaN {
                            note(&state, read.view, feature, place, now, &columns[column])
                        }
                        return state.lastTime
                    }
                }
                times.append(lastTime)
                for (feature, column) in read.features {
                    let value = row.isEmpty ? .nan : row[feature]
                    columns[column].values.append(value)
                    let hasText = place < columns[column].texts.count && columns[column].texts[place] != nil
                    columns[column].statuses.append(
                        lastTime == nil
                            ? .notFound : (row.isEmpty ? .outsideMaxAge : (value.isNaN && !hasText ? .null : .present)))
                }
            }
            for (_, column) in read.features { columns[column].times = times }
        }
        return FeatureAnswer(columns: columns, asOf: now, versions: plan.versions, serviceVersion: plan.serviceVersion)
    }

    /// A plan of another version of a view must not be run on this one's state.
    func requireSame(_ view: FeatureView) throws(FeaturesError) {
        guard views.contains(where: { $0 === view || $0.name == view.name && $0.digest == view.digest }) else {
            throw FeaturesError(
                "view-changed", "the view '\(view.name)' has just changed; ask again", fault: .world, retriable: true)
        }
    }

    /// A text that stands in place of a number.
    private func note(
        _ state: inout WindowState, _ view: FeatureView, _ feature: Int, _ place: Int, _ now: Instant,
        _ column: inout FeatureColumn
    ) {
        guard let text = view.text(feature, &state, at: now.milliseconds) else { return }
        while column.texts.count <= place { column.texts.append(nil) }
        column.texts[place] = text
    }
}

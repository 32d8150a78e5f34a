import Base

/// Features in the order in which they were asked for.
package struct FinishedFeatures: Sendable {
    package var columns: [FeatureColumn]
    /// Rows in which a derived feature could not be worked out although nothing was missing, and why in the first.
    package var failures = 0
    package var firstFailure: String?
}

extension FeaturePlan {
    /// Works out what is derived, and puts everything in the order in which it was asked for.
    ///
    /// A derived feature is missing where its expression gives null or fails: where something it reads is missing, with the
    /// status of that, else as `NULL_VALUE`, counted as a failure. One bad row takes nothing from the others.
    /// - Parameters:
    ///   - columns: what was read of views.
    ///   - count: rows.
    ///   - request: what a request brings along under a name, by row; nil where it does not.
    package func finish(
        _ columns: [FeatureColumn], count: Int, request: (String) -> [CELValue]?
    ) throws(FeaturesError) -> FinishedFeatures {
        guard !steps.isEmpty else { return FinishedFeatures(columns: columns) }
        var requests: [String: [CELValue]] = [:]
        for name in requestNames {
            guard let values = request(name), values.count == count else {
                throw FeaturesError(
                    "missing-request",
                    "a derived feature wants '\(name)' with the request: give it beside the keys, a value for each row")
            }
            requests[name] = values
        }
        var finished = FinishedFeatures(columns: columns)
        for step in steps { work(step, count, requests, &finished) }
        finished.columns = places.map { finished.columns[$0] }
        return finished
    }

    private func work(
        _ step: Step, _ count: Int, _ requests: [String: [CELValue]], _ finished: inout FinishedFeatures
    ) {
        var made = FeatureColumn(reference: step.reference)
        var context = CELContext(slots: Array(repeating: .null, count: step.sources.count))
        for row in 0..<count {
            var status = FeatureStatus.present
            var time: Int64?
            for (slot, source) in step.sources.enumerated() {
                switch source {
                case .request(let name):
                    context.slots[slot] = requests[name]?[row] ?? .null
                    if context.slots[slot].isNull { status = status == .present ? .null : status }
                case .column(let place), .step(let place):
                    let column = finished.columns[isStep(source) ? self.columns.count + place : place]
                    context.slots[slot] = column.value(row)
                    time = [time, column.times[row]].compactMap { $0 }.max()
                    if column.statuses[row] != .present, status != .outsideMaxAge { status = column.statuses[row] }
                }
            }
            let (number, text, failure) = value(step, &context)
            if let failure, status == .present {
                finished.failures += 1
                finished.firstFailure =
                    finished.firstFailure ?? "\(step.reference.text) in row \(row + 1): \(failure)"
            }
            made.values.append(number)
            if let text {
                while made.texts.count < row { made.texts.append(nil) }
                made.texts.append(text)
            }
            made.times.append(time)
            let isThere = !number.isNaN || text != nil
            made.statuses.append(isThere ? .present : status == .present ? .null : status)
        }
        while !made.texts.isEmpty, made.texts.count < count { made.texts.append(nil) }
        finished.columns.append(made)
    }

    private func isStep(_ source: Step.Source) -> Bool { if case .step = source { true } else { false } }

    private func value(_ step: Step, _ context: inout CELContext) -> (Double, String?, BaseError?) {
        do throws(BaseError) {
            let value = try step.program.evaluate(&context)
            if case .string(let text) = value { return (.nan, text, nil) }
            if value.isNull { return (.nan, nil, nil) }
            guard let number = value.number else {
                throw BaseError("bad-type", "a feature is a number, a text, true or false, and no \(value.typeName)")
            }
            return (number, nil, nil)
        } catch {
            return (.nan, nil, error)
        }
    }
}

extension FeatureColumn {
    /// A value for an expression; null where there is none.
    fileprivate func value(_ row: Int) -> CELValue {
        if row < texts.count, let text = texts[row] { return .string(text) }
        return values[row].isNaN ? .null : .double(values[row])
    }
}

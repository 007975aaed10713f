-- Where the notification belongs in a trace that its caller or the operator keeps: a W3C `traceparent`.
ALTER TABLE notification ADD COLUMN trace TEXT;

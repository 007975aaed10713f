-- How far a delivery that is sent in parts has come, and whether its text goes out as plain text after a refusal.
ALTER TABLE pending ADD COLUMN parts_sent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pending ADD COLUMN plain INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pending ADD COLUMN provider_id TEXT; -- the provider's id of the first part

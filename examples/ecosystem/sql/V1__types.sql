CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE address AS (street text, number int);
CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');

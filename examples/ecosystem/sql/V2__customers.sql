CREATE TABLE customers (
    id int PRIMARY KEY,
    name text NOT NULL,
    mood mood NOT NULL,
    address address,
    email email NOT NULL
);
